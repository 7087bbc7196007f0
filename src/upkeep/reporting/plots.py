"""What all pictures share: a finding as the title, one look, and the same style for a plant in each picture.

Colour-blind readers can tell the plants' colours apart (palette: Okabe and Ito 2008, Color universal design), and lines
and marks also differ in greyscale. Of many plants the worst are shown.
"""

import math
import textwrap
from collections.abc import Collection, Iterator, Mapping, Sequence
from io import BytesIO
from itertools import cycle
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
INK, GREY, PALE, ALERT = "#1d2733", "#7b8794", "#d8dde3", "#b3261e"
LINES = ["-", "--", "-.", ":"]
MARKS = ["o", "s", "^", "D", "v", "P", "X", "*"]
MOST_PLANTS = 15  # plants that one picture tells apart

WIDTH_INCHES = 9.2
# For the whole process: axes look their style up while they are drawn on.
matplotlib.rc_file(Path(__file__).with_name("upkeep.mplstyle"), use_default_template=False)
FONT = get_font(findfont(matplotlib.rcParams["font.family"][0]))
ROOM, LONG_ROOM = 30, 56  # characters that a legend or a panel's title, and a row of a single panel, have room for


def abridge(name: str, room: int = ROOM) -> str:
    """Return a name shortened to `room`; a blank goes before an underscore, which would hide it from legends."""
    shown = _spell_undrawable(name)
    if len(shown) > room:
        shown = f"{shown[: room // 2]}…{shown[1 - room // 2 :]}"
    return f" {shown}" if shown.startswith("_") else shown


def _spell_undrawable(text: str) -> str:
    """Return text on one line, with its code for each character that the font lacks, which would be a box."""
    return "".join(each if FONT.get_char_index(ord(each)) else f"(U+{ord(each):04X})" for each in show_text(text))


class Picture(Figure):
    """A figure that a notebook shows as a PNG, the same bytes each time, its title as the alternative text."""

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
        picture.axes[0].legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return picture


class Style(NamedTuple):
    """How a plant is drawn, as a line or as dots."""

    color: str
    linestyle: str
    marker: str
    label: str


Styles = Mapping[str, Style]


def style_plants(ranked: Sequence[str]) -> Styles:
    """Return the styles of the first few plants, which are drawn, sorted by name."""
    looks = zip(cycle(PALETTE), cycle(LINES), cycle(MARKS), sorted(ranked[:MOST_PLANTS]), strict=False)
    return {plant: Style(color, line, mark, abridge(plant)) for color, line, mark, plant in looks}


def each_plant(table: pl.DataFrame, styles: Styles) -> Iterator[tuple[Style, pl.DataFrame]]:
    """Yield the style and the rows of each plant, in the order of the styles."""
    rows = table.partition_by("plant", as_dict=True)
    yield from ((style, rows[(plant,)]) for plant, style in styles.items() if (plant,) in rows)


def draw_lines(panel: Axes, table: pl.DataFrame, styles: Styles, x: str, y: str) -> None:
    """Draw a line for each plant."""
    for style, rows in each_plant(table.drop_nulls(y), styles):
        panel.plot(rows[x], rows[y], color=style.color, linestyle=style.linestyle, label=style.label)


def show_dates(panel: Axes) -> None:
    """Label the horizontal axis with days or months, whichever fits."""
    locator = matplotlib.dates.AutoDateLocator(minticks=3, maxticks=9)
    panel.xaxis.set_major_locator(locator)
    panel.xaxis.set_major_formatter(matplotlib.dates.ConciseDateFormatter(locator))
