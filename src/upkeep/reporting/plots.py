"""What all pictures share: a finding as the title, one look, and one colour for each plant wherever it appears.

Colour-blind readers can tell the plants' colours apart (palette: Okabe and Ito 2008, Color universal design).
"""

import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from io import BytesIO
from itertools import cycle
from typing import Any

import matplotlib
import matplotlib.dates
import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

PALETTE = ["#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#8C6D31", "#6A3D9A"]
INK, GREY, PALE, ALERT = "#1d2733", "#7b8794", "#d8dde3", "#b3261e"
WIDTH_INCHES = 9.2
STYLE: dict[Any, Any] = {
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
SHADES = ["#2c3e50", "#54708a", "#86a0b6", "#b4c5d3", "#5c5346", "#8b8071", "#b9b0a2", "#d9d3c8"]
"""For what is not a plant: no plant has these colours."""

matplotlib.rcParams.update(STYLE)  # nothing else here draws, and axes look their style up while they are drawn on


class Picture(Figure):
    """A figure that a notebook shows as it is, the same bytes each time, its title as the alternative text."""

    def _repr_png_(self) -> tuple[bytes, dict[str, str]]:
        png = BytesIO()
        self.savefig(png, format="png", metadata={"Software": None})
        return png.getvalue(), {"alt": self.get_suptitle().replace("\n", " ")}


def draw_panels(
    title: str, rows: int = 1, columns: int = 1, height: float = 3.0, **options: Any
) -> tuple[Picture, Any]:
    """Return an empty picture with its finding as the title, and its axes, of shape (rows, columns).

    A row of panels is `height` inches high; `options` go to :meth:`matplotlib.figure.Figure.subplots`.
    """
    lines = textwrap.wrap(title, 84)
    picture = Picture(figsize=(WIDTH_INCHES, height * rows + 0.25 * len(lines) + 0.15))
    picture.suptitle("\n".join(lines), x=0.008, ha="left", fontsize=13, fontweight="bold", color=INK)
    return picture, picture.subplots(rows, columns, squeeze=False, **options)


def draw_panel(title: str, height: float) -> tuple[Picture, Axes]:
    """Return an empty picture of one panel, and the panel."""
    picture, axes = draw_panels(title, height=height)
    return picture, axes[0, 0]


def draw_rows(title: str, names: Iterable[str], height: float = 0.42) -> tuple[Picture, Axes]:
    """Return a picture of one panel that has a row of `height` inches for each name, and the panel."""
    labels = list(names)
    picture, panel = draw_panel(title, 1.0 + height * max(len(labels), 2))
    name_rows(panel, labels)
    return picture, panel


def draw_grid(title: str, panels: int, columns: int = 3, **options: Any) -> tuple[Picture, Any]:
    """Return an empty picture with at least this many small panels, and its axes; see :func:`finish_grid`."""
    columns = min(max(panels, 1), columns)
    return draw_panels(title, -(-max(panels, 1) // columns), columns, height=2.3, **options)


def colour_plants(plants: Iterable[str]) -> dict[str, str]:
    """Return each plant's colour, which depends on the fleet's list of plants only."""
    return dict(zip(sorted(set(plants)), cycle(PALETTE), strict=False))


def each_plant(table: pl.DataFrame) -> Iterator[tuple[str, str, pl.DataFrame]]:
    """Yield each plant of a table, its colour and its rows."""
    for plant, colour in colour_plants(table["plant"]).items():
        yield plant, colour, table.filter(plant=plant)


def finish_grid(picture: Picture, axes: Any, used: int) -> None:
    """Hide the panels in which nothing was drawn, and explain the lines once for all."""
    for panel in axes.flat[used:]:
        panel.set_visible(False)
    handles, labels = axes.flat[0].get_legend_handles_labels()
    if handles:
        picture.legend(handles, labels, loc="outside lower left", ncols=8)


def name_rows(axes: Axes, names: Iterable[str]) -> None:
    """Name the rows of a horizontal chart, the first one at the top."""
    labels = list(names)
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")


def legend_right(axes: Axes) -> None:
    """Put the legend beside the picture, where it covers nothing."""
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))


def show_dates(axes: Axes) -> None:
    """Label the horizontal axis with days or months, whatever fits."""
    locator = matplotlib.dates.AutoDateLocator(minticks=3, maxticks=9)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(matplotlib.dates.ConciseDateFormatter(locator))


def stack_bars(panel: Axes, parts: Mapping[str, Sequence[float]], form: str) -> None:
    """Draw a bar in each row, made of parts that are labelled where there is room; a part has a value per row."""
    ends = np.cumsum(list(parts.values()), axis=0) if parts else np.zeros((0, 0))
    longest = max(ends.max(initial=0), 1e-9)
    for (part, values), right, colour in zip(parts.items(), ends, cycle(SHADES), strict=False):
        bars = panel.barh(range(len(values)), values, left=right - values, color=colour, label=part, height=0.65)
        labels = [form.format(value) if value > 0.05 * longest else "" for value in values]
        panel.bar_label(bars, labels, label_type="center", color="white" if SHADES.index(colour) % 4 < 2 else INK)
    legend_right(panel)
