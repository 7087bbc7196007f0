"""What all pictures share: a finding as the title, one look, and one style for each plant wherever it appears.

Colour-blind readers can tell the plants' colours apart (palette: Okabe and Ito 2008, Color universal design), and lines
and marks differ in greyscale, too. Of many plants the worst are shown, and the others as one.
"""

import math
import textwrap
from collections.abc import Collection, Iterator, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import matplotlib.dates
import polars as pl
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, get_font

from upkeep.core.text import show_text

PALETTE = ["#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#8C6D31", "#6A3D9A"]
INK, GREY, HAZE, PALE, ALERT = "#1d2733", "#7b8794", "#bfc7cf", "#d8dde3", "#b3261e"
LINES = ["-", "--", "-.", ":"]
MARKS = ["o", "s", "^", "D", "v", "P", "X", "*"]
MOST_PLANTS = 15
"""Plants that one picture tells apart."""

WIDTH_INCHES = 9.2
# Nothing else here draws, and axes look their style up while they are drawn on.
matplotlib.rc_file(Path(__file__).with_name("upkeep.mplstyle"), use_default_template=False)
FONT = get_font(findfont(matplotlib.rcParams["font.family"][0]))
ROOM, LONG_ROOM = 30, 56
"""Characters of a name that a legend or a panel's title, and a row of a single panel, have room for."""


def abridge(name: str, room: int = ROOM) -> str:
    """Return a name as a picture has room for it, which is not hidden from a legend by an underscore at its start."""
    shown = _spell_undrawable(name)
    if len(shown) > room:
        shown = f"{shown[: room // 2]}…{shown[1 - room // 2 :]}"
    return f" {shown}" if shown.startswith("_") else shown


def _spell_undrawable(text: str) -> str:
    """Return text on one line, with the code of each character that the font lacks, where a box would be drawn."""
    return "".join(each if FONT.get_char_index(ord(each)) else f"(U+{ord(each):04X})" for each in show_text(text))


class Picture(Figure):
    """A figure that a notebook shows as it is, the same bytes each time, its title as the alternative text."""

    def _repr_png_(self) -> tuple[bytes, dict[str, str]]:
        png = BytesIO()
        self.savefig(png, format="png", metadata={"Software": None})
        return png.getvalue(), {"alt": self.get_suptitle().replace("\n", " ")}


def draw_panels(
    title: str, count: int = 1, *, columns: int = 3, height: float = 2.3, **options: Any
) -> tuple[Picture, list[Axes]]:
    """Return an empty picture of at least `count` panels with its finding as the title, and the panels, row by row.

    A row of panels is `height` inches high; `options` go to :meth:`matplotlib.figure.Figure.subplots`.
    """
    columns = min(max(count, 1), columns)
    rows = math.ceil(max(count, 1) / columns)
    lines = textwrap.wrap(_spell_undrawable(title), 84, max_lines=4, placeholder="…")
    picture = Picture(figsize=(WIDTH_INCHES, height * rows + 0.25 * len(lines) + 0.15))
    picture.suptitle("\n".join(lines), x=0.008, ha="left", fontsize=13, fontweight="bold", color=INK)
    picture.subplots(rows, columns, **options)
    return picture, picture.axes


def draw_rows(
    title: str, names: Collection[str], count: int = 1, *, height: float = 0.42
) -> tuple[Picture, list[Axes]]:
    """Return a picture of panels side by side that have a row of `height` inches for each name, the first on top."""
    picture, panels = draw_panels(title, count, height=1.0 + height * max(len(names), 2))
    for panel in panels:
        panel.set_yticks(range(len(names)), [abridge(name, LONG_ROOM // count) for name in names])
        panel.set_ylim(len(names) - 0.4, -0.6)
        panel.grid(visible=False, axis="y")
    return picture, panels


def explain_lines(picture: Picture) -> Picture:
    """Add the legend, beside a single panel or below several, and hide the panels in which nothing was drawn."""
    legend: dict[str, Artist] = {}
    for panel in picture.axes:
        panel.set_visible(panel.has_data())
        for handle, label in zip(*panel.get_legend_handles_labels(), strict=True):
            legend.setdefault(label, handle)
    if legend and len(picture.axes) > 1:
        picture.legend([*legend.values()], [*legend], loc="outside lower left", ncols=6)
    elif legend:
        panel.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return picture


class Style(NamedTuple):
    """How a plant is drawn, as a line or as dots."""

    color: str
    linestyle: str
    marker: str
    label: str
    is_shown: bool

    @property
    def line(self) -> dict[str, Any]:
        """What :meth:`matplotlib.axes.Axes.plot` takes."""
        width, order = (1.8, 3) if self.is_shown else (0.6, 1)
        return {"color": self.color, "ls": self.linestyle, "label": self.label, "linewidth": width, "zorder": order}

    @property
    def dots(self) -> dict[str, Any]:
        """What :meth:`matplotlib.axes.Axes.scatter` takes."""
        return {"color": self.color, "marker": self.marker, "label": self.label, "zorder": 3 if self.is_shown else 1}


Styles = Mapping[str, Style]
MEAN = Style(GREY, "-", "o", "mean", is_shown=True)
"""Of what is no plant, but the mean of many."""


def style_plants(ranked: Sequence[str]) -> Styles:
    """Return each plant's style: the first ones, in the order of their names, each its own, the others' all alike."""
    shown, others = sorted(ranked[:MOST_PLANTS]), ranked[MOST_PLANTS:]
    styles = {
        plant: Style(
            PALETTE[at % len(PALETTE)], LINES[at % len(LINES)], MARKS[at % len(MARKS)], abridge(plant), is_shown=True
        )
        for at, plant in enumerate(shown)
    }
    for at, plant in enumerate(others):  # one entry in the legend; a label with an underscore has none
        styles[plant] = Style(HAZE, "-", ".", "_" if at else f"{len(others)} others", is_shown=False)
    return styles


def each_plant(table: pl.DataFrame, styles: Styles) -> Iterator[tuple[str, Style, pl.DataFrame]]:
    """Yield each plant of a table, its style and its rows, in the order of the styles."""
    rows = {str(plant): own for (plant,), own in table.group_by("plant", maintain_order=True)}
    for plant, style in styles.items():
        if plant in rows:
            yield plant, style, rows[plant]


def draw_lines(panel: Axes, table: pl.DataFrame, styles: Styles, x: str, y: str) -> None:
    """Draw a line for each plant and, of more than can be told apart, the middle one of all at each `x`."""
    known = table.drop_nulls(y)
    for _, style, rows in each_plant(known, styles):
        panel.plot(rows[x], rows[y], **style.line)
    if len(styles) > MOST_PLANTS:
        middle = known.group_by(x).agg(pl.median(y)).sort(x)
        panel.plot(middle[x], middle[y], color=INK, linewidth=3, label="middle of all plants", zorder=4)


def sum_up_others(table: pl.DataFrame) -> pl.DataFrame:
    """Return the first plants of a table with a row for each, the worst first, and a last row with the others' mean.

    A table of no more than `MOST_PLANTS` is returned in the order of their names.
    """
    if table.height <= MOST_PLANTS:
        return table.sort("plant")
    others = table[MOST_PLANTS:]
    mean = others.select(pl.lit(f"mean of {others.height} others").alias("plant"), pl.exclude("plant").mean())
    return pl.concat([table[:MOST_PLANTS], mean], how="vertical_relaxed")


def show_dates(panel: Axes) -> None:
    """Label the horizontal axis with days or months, whatever fits."""
    locator = matplotlib.dates.AutoDateLocator(minticks=3, maxticks=9)
    panel.xaxis.set_major_locator(locator)
    panel.xaxis.set_major_formatter(matplotlib.dates.ConciseDateFormatter(locator))
