from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
from report_cases import GROUP, UNKNOWN, evaluation, with_candidates

from upkeep.judging.reports import Alarm, read_curves, write_curves
from upkeep.reporting import plots, quality_plots

CANDIDATES = {"fleet": 0.7, "plant": 0.65, "error_count": 0.3, "class_prior": 0.05}
PLANTS = {plant: with_candidates(GROUP, **CANDIDATES) for plant in ("lyon", "porto")}
REPORT = evaluation(PLANTS)
STYLES = plots.style_plants(["lyon", "porto"])
NOT_JUDGED = evaluation({plant: with_candidates(UNKNOWN, **dict.fromkeys(CANDIDATES)) for plant in PLANTS})


def title_of(picture: plots.Picture) -> str:
    png, metadata = picture._repr_png_()
    assert png.startswith(b"\x89PNG")
    return metadata["alt"]


def test_a_plant_keeps_its_style_whichever_way_the_plants_are_ranked() -> None:
    assert plots.style_plants(["porto", "lyon"]) == plots.style_plants(["lyon", "porto"])
    assert plots.style_plants(["lyon"])["lyon"].color == plots.PALETTE[0]


def test_plants_that_are_told_apart_differ_in_greyscale_too() -> None:
    styles = plots.style_plants([f"p{number:02}" for number in range(plots.MOST_PLANTS)]).values()
    assert len({(style.color, style.linestyle) for style in styles}) == len({style.linestyle for style in styles}) * 2
    assert len({style.linestyle for style in [*styles][:4]}) == 4


def test_of_a_hundred_plants_the_worst_are_shown() -> None:
    ranked = [f"p{number:03}" for number in reversed(range(100))]
    styles = plots.style_plants(ranked)
    assert list(styles) == sorted(ranked[:15])
    curves = pl.DataFrame({"plant": ranked, "x": 1.0, "y": 1.0})
    _, (panel,) = plots.draw_panels("")
    plots.draw_lines(panel, curves, styles, "x", "y")
    assert [line.get_label() for line in panel.lines] == sorted(ranked[:15])


def test_a_legend_names_what_any_panel_shows() -> None:
    picture, (first, second) = plots.draw_panels("", 2)
    first.plot([0, 1], label="risk")
    second.plot([0, 1], label="risk")
    second.axvline(0.5, label="failure")
    plots.explain_lines(picture)
    assert [text.get_text() for text in picture.legends[0].get_texts()] == ["risk", "failure"]


def test_the_plant_whose_alarms_lose_most_comes_first() -> None:
    costs = {"run_to_failure": 200.0, "fixed_interval": 150.0, "oracle": 40.0}
    plants = {name: {**GROUP, "costs": {**costs, "alarms": alarms}} for name, alarms in (("a", 50.0), ("b", 90.0))}
    assert quality_plots.rank_plants(evaluation({**plants, "c": UNKNOWN})) == ["b", "a", "c"]


def test_of_a_report_on_a_hundred_plants_the_worst_are_drawn() -> None:
    report = evaluation({f"p{number:03}": PLANTS["lyon"] for number in range(100)})
    styles = plots.style_plants(quality_plots.rank_plants(report))
    for picture in (quality_plots.draw_events(report, styles), quality_plots.draw_costs(report)):
        title_of(picture)
        assert [label.get_text() for label in picture.axes[0].get_yticklabels()] == list(styles)


def test_the_same_picture_has_the_same_bytes_and_no_date() -> None:
    first, second = (quality_plots.draw_events(REPORT, STYLES)._repr_png_()[0] for _ in range(2))
    assert first == second
    assert b"tEXt" not in first


def test_a_picture_tells_its_finding_to_those_who_cannot_see_it() -> None:
    assert title_of(quality_plots.draw_events(REPORT, STYLES)) == (
        "80% of 10 failures were caught in time, half of them at least 31 h ahead"
    )


def test_a_name_with_dollars_is_no_formula() -> None:
    picture, _ = plots.draw_rows("$Names^{", ["$a$b^{"])
    assert title_of(picture) == "$Names^{"


def test_a_name_that_is_long_or_has_no_glyphs_is_told_apart_in_a_picture_and_in_its_legend() -> None:
    names = ["Halle 1", "北京", "_x", "a\nb", f"{'a' * 100}1{'b' * 99}"]
    assert [plots.abridge(name) for name in names] == [
        *("Halle 1", "(U+5317)(U+4EAC)", " _x", "a b"),
        f"{'a' * 15}…{'b' * 14}",
    ]
    styles = plots.style_plants(names)
    picture, panels = plots.draw_rows("北京", names, 2)
    for style in styles.values():
        panels[0].plot([0, 1], label=style.label)
    plots.explain_lines(picture)
    assert title_of(picture) == "(U+5317)(U+4EAC)"
    assert len(picture.legends[0].get_texts()) == len(names)
    assert min(panel.get_position().width for panel in panels) > 0.15


def test_a_title_says_how_much_the_alarms_save() -> None:
    title = title_of(quality_plots.draw_costs(REPORT))
    assert "saves 120,000" in title
    assert "fixed intervals" not in title
    costs = {"run_to_failure": 200.0, "fixed_interval": 50.0, "alarms": 50.0, "oracle": 40.0}
    title = title_of(quality_plots.draw_costs(evaluation({"lyon": {**GROUP, "costs": costs}})))
    assert title.endswith("; fixed intervals save no less")


def test_a_title_says_why_no_saving_is_known() -> None:
    cheap = {**GROUP, "metrics": {**GROUP["metrics"], "cost_saving": None}}
    cheap |= {"costs": {"run_to_failure": 20.0, "fixed_interval": 15.0, "alarms": 30.0, "oracle": 20.0}}
    title = title_of(quality_plots.draw_costs(evaluation({"lyon": cheap})))
    assert title == (
        "No saving is known: even perfect foresight saves nothing, as a failure costs no more than a planned repair"
    )
    assert "No saving is known: no test rows" in title_of(quality_plots.draw_costs(NOT_JUDGED))


@pytest.mark.parametrize(
    ("observed", "words"), [(0.5, "at its word"), (0.2, "too high in lyon"), (0.9, "too low in lyon")]
)
def test_a_title_says_whether_risks_are_fair(observed: float, words: str) -> None:
    bins = {"plant": "lyon", "rows": [9000, 100], "predicted": [0.01, 0.5], "observed": [0.01, observed]}
    assert words in title_of(quality_plots.draw_calibration(pl.DataFrame(bins), STYLES))


def test_a_title_praises_no_risk_that_is_nearly_the_same_for_all() -> None:
    bins = {"plant": "lyon", "rows": [9000, 100], "predicted": [0.299, 0.301], "observed": [0.31, 0.29]}
    assert "not known to mean" in title_of(quality_plots.draw_calibration(pl.DataFrame(bins), STYLES))


@pytest.mark.parametrize("draw", ["draw_events", "draw_costs"])
def test_what_is_not_known_is_drawn_as_nothing(draw: str) -> None:
    title = title_of(getattr(quality_plots, draw)(*(NOT_JUDGED, STYLES)[: 1 if draw == "draw_costs" else 2]))
    assert "nan" not in title.lower()


@pytest.mark.parametrize("rate", [None, 0.0, 2.5])
def test_a_rate_of_alarms_is_drawn_from_nothing_upwards(rate: float | None) -> None:
    plant = with_candidates(GROUP, **CANDIDATES)
    report = evaluation({"lyon": {**plant, "metrics": {**plant["metrics"], "false_alarms_per_machine_month": rate}}})
    low, high = quality_plots.draw_events(report, STYLES).axes[1].get_xlim()
    assert low == 0
    assert high >= (rate or 1)


NO_ROWS = dict.fromkeys(["plant", "feature", "words"], pl.String) | dict.fromkeys(
    ["gain", "threshold", "precision", "recall", "cost", "predicted", "observed", "rows"], pl.Float64
)


@pytest.mark.parametrize(
    ("draw", "words"),
    [
        (lambda empty: quality_plots.draw_calibration(empty, STYLES), "not known to mean what they say in any plant"),
        (lambda empty: quality_plots.draw_importance(empty, STYLES), "no features that count"),
        (lambda empty: quality_plots.draw_alarms([], empty, {"lyon": 0.5}, 48), "No alarm was raised"),
    ],
)
def test_curves_without_rows_are_drawn_as_nothing(draw, words, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_curves({"curves": pl.DataFrame(schema=NO_ROWS)})
    assert words in title_of(draw(read_curves()["curves"]))


def test_no_name_in_a_curve_can_end_a_script(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    curve = pl.DataFrame({"plant": ["</script><b>", "a\\u003cb", "7", 'a,"b"'], "cost": [1.0, 2.0, 3.0, 4.0]})
    write_curves({"cost_by_threshold": curve})
    assert "<" not in (tmp_path / "reports/evaluation/cost_by_threshold.csv").read_text()
    assert read_curves()["cost_by_threshold"].equals(curve)


def test_an_alarm_counts_as_followed_only_within_the_horizon() -> None:
    at = datetime(2025, 11, 1, tzinfo=UTC)
    rows = pl.DataFrame(
        {
            "plant": "lyon",
            "machine": "M1",
            "time": [at - timedelta(hours=1), at],
            "probability": [0.1, 0.9],
            "alarm": [False, True],
        }
    )
    alarm = Alarm(plant="lyon", machine="M1", time=at.isoformat(), probability=0.9, hours_to_failure=60.0, reasons=[])
    assert "0 of these 1" in title_of(quality_plots.draw_alarms([alarm], rows, {"lyon": 0.5}, 48))
    assert "1 of these 1" in title_of(quality_plots.draw_alarms([alarm], rows, {"lyon": 0.5}, 72))
