"""The note on a merge request, as its readers meet it."""

import polars as pl
from merge_request_cases import (
    BLIND,
    FAILED,
    GOOD,
    OUT_OF_RANGE,
    PASSED,
    delivered,
    drift,
    fetched,
    params,
    plant,
    quality,
    review,
    snapshot,
)

from upkeep.gitlab.markdown import MOST_LISTED
from upkeep.gitlab.note import draw_changes, write_note
from upkeep.judging.comparison import JUDGED, Change
from upkeep.reporting.plots import MOST_PLANTS
from upkeep.reporting.quality_plots import draw_estimates

LYON = plant("lyon")


def note(*sides, image="", **changes: object) -> str:
    return write_note(review(*sides, **changes), params().evaluate, image, ".")


def note_of(before: object, after: object, report: str) -> str:
    """The note on two sides that differ in this one report."""
    return note(snapshot("main", LYON, **{report: before}), snapshot("this branch", LYON, **{report: after}))


def row(note: str, plant: str) -> str:
    return next(line for line in note.splitlines() if line.startswith(f"| {plant} |"))


def test_the_first_line_says_that_nothing_changed():
    assert note(snapshot("main"), snapshot()).startswith("## ✅ May ship: no figure has changed\n")


def test_the_first_line_of_a_better_model_says_what_it_saves():
    text = note(snapshot("main", plant("lyon", BLIND)), snapshot("this branch", LYON))
    assert text.splitlines()[0] == (
        "## ✅ May ship: it saves 240 (80.0%) on the newest rows; it catches 3 of 3 failures in time, in place of 0"
    )


def test_the_first_lines_of_a_worse_model_say_what_it_costs_and_why_it_is_blocked():
    lines = note(snapshot("main", LYON), snapshot("this branch", plant("lyon", BLIND))).splitlines()
    assert lines[0] == (
        "## ⛔ May not ship (2 reasons below); it costs 240 (400.0%) more on the newest rows; "
        "it catches 0 of 3 failures in time, in place of 3"
    )
    assert lines[2].startswith("- lyon: average precision falls from 0.30 to 0.12")
    assert lines[3].startswith("- following the alarms costs 300 instead of 60")


def test_a_saving_that_chance_may_explain_is_called_so():
    one_caught = pl.concat([plant("lyon", BLIND, 5), LYON.filter(machine="m5")])
    text = note(snapshot("main", plant("lyon", BLIND)), snapshot("this branch", one_caught))
    assert text.splitlines()[0] == (
        "## ✅ May ship: it saves 80 (26.7%) on the newest rows, which chance may explain; "
        "it catches 1 of 3 failures in time, in place of 0"
    )


def test_a_first_run_says_what_it_costs_beside_running_to_failure():
    text = note(None, snapshot("this branch", LYON))
    assert (
        "the first run, with nothing to compare it with; following its alarms costs 60, running to failure 300" in text
    )
    assert "<br>" not in row(text, "lyon")
    assert "**Money.**" not in text
    assert "None" not in text


def test_a_first_run_that_misses_a_floor_is_blocked():
    assert "⛔ May not ship (1 reason below); the first run" in note(None, snapshot(), checks=[PASSED, FAILED])


def test_a_plant_that_was_added_is_named_and_shown_by_itself():
    text = note(snapshot("main", LYON), snapshot())
    assert text.splitlines()[0].endswith("no figure has changed; porto is new")
    assert row(text, "porto").startswith("| porto | 0.30\N{NO-BREAK SPACE}(")
    assert "= same" in row(text, "lyon")


def test_a_plant_that_was_removed_is_named():
    text = note(snapshot("main"), snapshot("this branch", LYON))
    assert "porto is gone" in text.splitlines()[0]
    assert "| porto |" not in text


def test_a_change_that_is_certain_is_bold():
    worse = row(note(snapshot("main", LYON), snapshot("this branch", plant("lyon", BLIND))), "lyon")
    assert worse.endswith("<br>**↑ worse** |")
    assert "100% (100% to 100%)<br>0% (0% to 0%)<br>**↓ worse**" in worse.replace("\N{NO-BREAK SPACE}", " ")


def test_alarms_and_failures_are_counted_and_listed_by_machine():
    text = note(snapshot("main", LYON), snapshot("this branch", plant("lyon", BLIND)))
    assert "Gained 0 (0 before a failure, 0 before none); lost 3 (3 before a failure, 0 before none)" in text
    assert "Caught in time now: 0 failures; no longer: 3 failures." in text
    assert "| lyon | m1 | 2025-01-07 06:00 | no longer caught |" in text


def test_of_many_alarms_only_the_first_are_listed():
    many = plant("lyon", BLIND, machines=2 * MOST_LISTED + 20)
    text = note(snapshot("main", many), snapshot("this branch", plant("lyon", GOOD, machines=2 * MOST_LISTED + 20)))
    assert text.count("| gained | yes |") == MOST_LISTED
    assert "… and 10 more." in text


def test_long_parts_are_folded_and_the_links_stand_open(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "reports/drift").mkdir(parents=True)
    (tmp_path / "reports/drift/index.html").touch()
    text = note(snapshot("main"), snapshot(), image="![cost](cost.png)")
    unfolded = [part.rpartition("</details>")[2] for part in text.split("<details>")]
    assert "**Reports.** [drift](./drift/index.html)" in unfolded[-1]
    assert "![cost](cost.png)" in text
    assert text.count("<details>") == text.count("</details>")


def test_without_reports_the_note_still_says_what_is_missing():
    lost = snapshot(
        "this branch", predictions={}, evaluation=None, metrics=None, drift=None, quality=None, manifest=None
    )
    text = note(snapshot("main"), lost, checks=[], times={})
    assert "not known" in text
    assert "No stage had to run" in text


def test_added_batches_are_counted_apart_from_late_deliveries():
    before, after = delivered(["lyon"], "2025-01-06"), delivered(["lyon"], "2025-01-06", "2025-01-13", "2025-01-20")
    late = after.files[0].model_copy(update={"delivery": 2, "sha256": "other", "rows": 5})
    anew = after.files[1].model_copy(update={"delivery": 2, "rows": 0})
    text = note_of(before, after.model_copy(update={"files": (*after.files, late, anew)}), "manifest")
    assert "2 batches were added, 2025-01-13 to 2025-01-20." in text
    assert "| lyon | 2 | 341 | 0 | 0 | 2 |" in text
    assert "3 files of before are gone" in note_of(after, after.model_copy(update={"files": (late,)}), "manifest")
    assert "The same batches as before" in note_of(after, after, "manifest")


def test_quarantined_rows_are_counted_with_their_reasons():
    before = quality(lyon=OUT_OF_RANGE, porto=OUT_OF_RANGE)
    after = quality(lyon={"out of range": 12, "null key": 30, "late": 0}, porto=OUT_OF_RANGE)
    text = note_of(before, after, "quality")
    assert "52 rows are set aside, +32." in text
    assert "| lyon | telemetry | 10 | 42 | null key: 30, out of range: 12 |" in text
    assert "20 rows are set aside, as before." in note_of(before, before, "quality")
    assert "20 rows are set aside." in note_of(None, before, "quality")


def test_drifted_plants_are_named_with_their_columns():
    text = note_of(None, drift(lyon=["current_a", "vibration_mm_s"]), "drift")
    assert "\n**Drift.** lyon has drifted.\n" in text
    assert "| lyon | not known | 100% | current_a and vibration_mm_s |" in text


def test_settings_that_changed_are_shown_as_what_was_tried():
    later = snapshot("this branch", LYON, params=fetched("//me:secret@elsewhere", until="2025-03-03"))
    text = note(snapshot("main", LYON), later)
    assert "**Tried.** 2 settings of `params.yaml` changed." in text
    assert "| `fetch.until` | 2025-02-24 | 2025-03-03 |" in text
    assert "secret" not in text
    assert "**Tried.** The same settings." in note(snapshot("main", LYON), snapshot("this branch", LYON))
    assert "**Tried.**" not in note(None, later)


def test_the_newest_rows_are_named_by_their_days():
    text = note(snapshot("main", LYON), snapshot("this branch", LYON))
    assert "on the 240 newest rows, 2025-01-06 to 2025-01-07, which neither was trained on" in text


def test_the_picture_says_what_it_shows_and_comes_out_the_same():
    changed = review(snapshot("main"), snapshot("this branch", LYON, plant("porto", BLIND)))
    picture, again = draw_changes(changed), draw_changes(changed)
    assert picture.get_suptitle() == "On the newest rows, following this branch's alarms costs 240 more"
    assert [panel.get_xlabel() for panel in picture.axes] == ["average precision", "cost"]
    assert picture._repr_png_() == again._repr_png_()


def test_where_no_figure_has_changed_there_is_no_picture():
    assert draw_changes(review(snapshot("main"), snapshot())) is None
    assert draw_changes(review(None, snapshot())) is None


def test_of_hundreds_of_plants_the_picture_shows_those_that_changed_most():
    changed = review(snapshot("main", LYON), snapshot("this branch", plant("lyon", BLIND)))
    same = changed.comparison.plants["lyon"]._replace(changes={name: Change(1.0, 1.0) for name in JUDGED})
    many = {f"p{number:03}": same for number in range(300)} | changed.comparison.plants
    picture = draw_changes(changed._replace(comparison=changed.comparison._replace(plants=many)))
    names = [label.get_text() for label in picture.axes[0].get_yticklabels()]
    assert len(names) == MOST_PLANTS
    assert names[0] == "lyon"


def test_a_figure_that_is_not_known_has_no_point_in_the_picture():
    (panel,) = draw_estimates("x", ["lyon", "porto"], {"main": {"cost": [(None, None), (1.0, (0.5, 2.0))]}}).axes
    assert [list(line.get_xdata()) for line in panel.lines] == [[], [0.5, 2.0], [1.0]]
