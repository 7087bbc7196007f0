"""What all pictures share: a finding as the title, one look, and one colour for each plant wherever it appears.

Colour-blind readers can tell the plants' colours apart (palette: Okabe and Ito 2008, Color universal design).
"""

import math
import textwrap
from collections.abc import Collection, Iterable, Iterator
from io import BytesIO
from itertools import cycle
from typing import Any

import matplotlib
import matplotlib.dates
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

PALETTE = ["#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#8C6D31", "#6A3D9A"]
INK, GREY, PALE, ALERT = "#1d2733", "#7b8794", "#d8dde3", "#b3261e"
WIDTH_INCHES = 9.2
# Nothing else here draws, and axes look their style up while they are drawn on.
matplotlib.rcParams |= {
    "axes.axisbelow": True,
    "axes.edgecolor": GREY,
    "axes.grid": True,
    "axes.labelcolor": INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "figure.constrained_layout.use": True,
    "font.family": "DejaVu Sans",  # Matplotlib's own: a picture must not depend on the machine's fonts
    "font.size": 10,
    "grid.color": PALE,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "lines.linewidth": 2,
    "savefig.dpi": 110,
    "xtick.color": INK,
    "ytick.color": INK,
}


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
    lines = textwrap.wrap(title, 84)
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
        panel.set_yticks(range(len(names)), list(names))
        panel.set_ylim(len(names) - 0.4, -0.6)
        panel.grid(visible=False, axis="y")
    return picture, panels


def explain_lines(picture: Picture) -> Picture:
    """Add the legend, beside a single panel or below several, and hide the panels in which nothing was drawn."""
    first, *others = picture.axes
    for panel in picture.axes:
        panel.set_visible(panel.has_data())
    handles, labels = first.get_legend_handles_labels()
    if handles and others:
        picture.legend(handles, labels, loc="outside lower left", ncols=8)
    elif handles:
        first.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return picture


def colour_plants(plants: Iterable[str]) -> dict[str, str]:
    """Return each plant's colour, which depends on the fleet's list of plants only."""
    return dict(zip(sorted(set(plants)), cycle(PALETTE), strict=False))


def each_plant(table: pl.DataFrame) -> Iterator[tuple[str, str, pl.DataFrame]]:
    """Yield each plant of a table, its colour and its rows."""
    for plant, colour in colour_plants(table["plant"]).items():
        yield plant, colour, table.filter(plant=plant)


def show_dates(panel: Axes) -> None:
    """Label the horizontal axis with days or months, whatever fits."""
    locator = matplotlib.dates.AutoDateLocator(minticks=3, maxticks=9)
    panel.xaxis.set_major_locator(locator)
    panel.xaxis.set_major_formatter(matplotlib.dates.ConciseDateFormatter(locator))
