"""The picture of a comparison: a panel for each figure, a row for each plant or release, a mark for each side."""

from collections.abc import Mapping, Sequence

from upkeep.judging.reports import Interval
from upkeep.reporting.plots import GREY, INK, Picture, draw_rows, explain_lines

LOOKS = (("o", GREY, -0.14), ("o", INK, 0.14), ("|", INK, 0.14))  # mark, colour and place in its row of each side
KnownFigure = tuple[float | None, Interval]  # a figure and its interval, each None if it is not known


def draw_estimates(
    title: str, rows: Sequence[str], found: Mapping[str, Mapping[str, Sequence[KnownFigure]]]
) -> Picture:
    """Draw estimates, given by side and figure, one for each row."""
    figures = list(dict.fromkeys(figure for own in found.values() for figure in own))
    picture, panels = draw_rows(title, rows, len(figures), height=0.55)
    for panel, figure in zip(panels, figures, strict=True):
        for (side, own), (mark, colour, shift) in zip(found.items(), LOOKS, strict=False):
            panel.plot([], [], mark, color=colour, markersize=9, label=side)
            for row, (value, interval) in enumerate(own[figure]):
                if interval:
                    panel.plot(interval, [row + shift] * 2, color=colour, linewidth=4, alpha=0.35)
                if value is not None:
                    panel.plot(value, row + shift, mark, color=colour, markersize=9)
        panel.set_xlabel(figure.replace("_", " "))
    return explain_lines(picture)
