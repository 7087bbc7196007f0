"""What the evaluation reports of plants, candidates and the whole fleet."""

import json
from collections.abc import Mapping

import polars as pl
import pytest
from prediction_cases import HORIZON, evaluate_rows, how, machine

from upkeep.judging.evaluation import draw_curves, judge, last_row_f1, read_outcomes
from upkeep.judging.reports import Evaluation
from upkeep.judging.sanity import REFERENCES

GOOD = {25: 0.9, 26: 0.8}


def fleet() -> pl.DataFrame:
    """Two machines, one of which fails, judged by a good model and by one that sees nothing."""
    good = pl.concat([machine("m1", fails_at=30, alarms=GOOD), machine("m2")])
    blind = pl.concat([machine("m1", fails_at=30), machine("m2")])
    return pl.concat([good, blind.with_columns(candidate=pl.lit("fleet"), chosen=pl.lit(False))])


def many(alarms: Mapping[int, float] = GOOD, machines: int = 14, **columns: object) -> pl.DataFrame:
    """Machines of which every other fails, all with these alarms before a failure."""
    rows = [
        machine(f"m{number}", fails_at=30 if number % 2 else None, alarms=alarms if number % 2 else {})
        for number in range(machines)
    ]
    return pl.concat(rows).with_columns(**{name: pl.lit(value) for name, value in columns.items()})


def with_references(chosen: pl.DataFrame, **alarms: Mapping[int, float]) -> pl.DataFrame:
    """Add what the chosen model must beat, blind unless said otherwise."""
    names = {name: {} for name in REFERENCES} | alarms
    machines = chosen["machine"].n_unique()
    others = [many(found, machines, candidate=name, chosen=False) for name, found in names.items()]
    return pl.concat([chosen, *others])


def by_plant(predictions: pl.DataFrame) -> dict[str, pl.DataFrame]:
    return {plant: rows for (plant,), rows in predictions.partition_by("plant", as_dict=True).items()}


def report(predictions: pl.DataFrame, **changes: object) -> Evaluation:
    return evaluate_rows(by_plant(predictions), how(**changes))


def test_the_chosen_model_gives_the_headline():
    metrics = report(fleet()).headline
    assert metrics.overall == metrics.plants["lyon"]
    assert metrics.overall.failures_caught == 1.0
    assert metrics.overall.median_lead_time_hours == 5.0
    assert metrics.overall.rows == 80


def test_every_candidate_is_compared_with_the_chosen_model():
    found = report(fleet()).plants["lyon"]
    assert found.chosen == "plant"
    assert found.candidates["fleet"].metrics.failures_caught == 0.0
    assert found.candidates["fleet"].lead > 0.1
    assert found.candidates["plant"].lead == 0
    assert found.candidates["plant"].lead_interval is None


def test_two_failing_machines_at_least_are_resampled_to_tell_an_interval():
    one, two = (report(pl.concat([many(machines=count), machine("healthy")])).overall for count in (2, 4))
    assert one.intervals["average_precision"] is one.intervals["failures_caught"] is None
    assert one.intervals["false_alarms_per_machine_month"] == [0, 0]
    assert two.candidates["plant"].lead_interval == [0, 0]


def test_overall_pools_what_each_plant_chose():
    other = fleet().with_columns(plant=pl.lit("porto"), chosen=~pl.col("chosen"))
    found = report(pl.concat([fleet(), other]))
    assert found.overall.chosen is None
    assert found.plants["porto"].chosen == "fleet"
    assert found.overall.metrics.failures_caught == 0.5
    assert found.overall.metrics.machines == 4


def test_a_candidate_that_one_plant_lacks_is_not_compared_overall():
    lone = machine("m1", fails_at=30, alarms=GOOD, plant="porto")
    found = report(pl.concat([fleet(), lone])).overall.candidates
    assert found["fleet"].lead is None
    assert found["plant"].lead is not None


def test_costs_stand_beside_run_to_failure_fixed_interval_and_oracle():
    fixed = machine("m1", fails_at=30, alarms={0: 0.9, 15: 0.9}, candidate="fixed_interval", chosen=False)
    found = report(pl.concat([machine("m1", fails_at=30, alarms=GOOD), fixed])).overall.costs
    assert found.model_dump() == {"run_to_failure": 100.0, "fixed_interval": 110.0, "alarms": 20.0, "oracle": 20.0}


def test_validation_rows_are_judged_apart_from_test_rows():
    seen = machine("m1", fails_at=30, split="validation")
    found = report(pl.concat([fleet(), seen]))
    assert found.validation.plants["lyon"].failures_caught == 0.0
    assert found.overall.metrics.rows == 80


def test_a_plant_without_failures_gets_none_and_a_note():
    found = report(machine("m1", alarms={5: 0.9}))
    assert found.overall.metrics.average_precision is None
    assert found.overall.metrics.false_alarms_per_machine_month > 0
    assert found.notes == [
        "lyon: no failure ahead of any test row, so not known: average precision",
        "lyon: no failure with test rows early enough to catch it, so not known: failures caught, cost saving",
    ]


def test_a_plant_without_test_rows_gets_none_and_a_note():
    found = report(machine("m1", fails_at=30, split="validation"))
    assert found.plants["lyon"].metrics.brier is None
    assert found.plants["lyon"].chosen is None
    assert "no test rows" in found.notes[0]


def test_a_plant_without_any_row_stays_in_the_report():
    found = evaluate_rows({"lyon": fleet(), "porto": fleet().clear()}, how())
    assert found.plants["porto"].metrics.rows == 0
    assert found.plants["porto"].metrics.cost_saving is None


def test_the_report_is_strict_json_and_the_same_again_in_any_order_of_rows():
    first = json.dumps(report(fleet()).model_dump(), allow_nan=False)
    assert json.dumps(report(fleet().sample(fraction=1.0, shuffle=True, seed=3)).model_dump(), allow_nan=False) == first


def test_an_interval_holds_its_figure():
    machines = [machine(f"m{i}", fails_at=30, alarms=GOOD if i % 2 else {3: 0.7}) for i in range(8)]
    found = report(pl.concat(machines), bootstrap=200).overall
    assert set(found.intervals) == {
        "average_precision",
        "failures_caught",
        "false_alarms_per_machine_month",
        "cost_saving",
    }
    for name, (low, high) in found.intervals.items():
        assert low < getattr(found.metrics, name) < high


def test_the_last_row_of_each_machine_decides_the_last_row_f1():
    found = machine("m1", hours=range(30), fails_at=32, alarms={29: 0.9})
    missed = machine("m2", hours=range(30), fails_at=32, alarms={28: 0.9})
    healthy = machine("m3", hours=range(30))
    assert last_row_f1(read_outcomes(pl.concat([found, missed, healthy]), how(), HORIZON)) == pytest.approx(2 / 3)


def test_judging_without_resamples_gives_the_same_metrics():
    rows = fleet().filter("chosen")
    assert judge(read_outcomes(rows, how(), HORIZON), how()).metrics.cost == report(fleet()).overall.metrics.cost


def test_curves_have_few_points():
    long = machine("m1", hours=range(600), fails_at=605, alarms={hour: hour / 600 for hour in range(600)})
    long = long.with_columns(label=pl.int_range(pl.len()).gt(9).cast(pl.UInt8))
    for curve in draw_curves("lyon", long, how(), HORIZON).values():
        assert curve["plant"].unique().to_list() == ["lyon"]
        assert 0 < curve.height <= 200


def test_curves_of_a_plant_without_test_rows_are_empty():
    curves = draw_curves("lyon", fleet().clear(), how(), HORIZON)
    assert {name: curve.height for name, curve in curves.items()} == {
        "calibration": 0,
        "precision_recall": 0,
        "cost_by_threshold": 0,
    }


def test_a_test_split_of_failing_rows_only_tells_neither_ranking_nor_false_alarms():
    rows = pl.concat([machine(f"m{number}", hours=range(20, 30), fails_at=30, alarms=GOOD) for number in range(8)])
    found = report(rows)
    metrics = found.overall.metrics
    for name in ("average_precision", "roc_auc", "brier", "log_loss", "recall_at_precision", "precision", "f1"):
        assert getattr(metrics, name) is None
    assert (
        metrics.false_alarms_per_machine_month
        is metrics.cost
        is metrics.cost_saving
        is found.overall.costs.saved
        is None
    )
    assert metrics.failures_caught == 1.0
    assert found.overall.sanity.faults == ["not known: no healthy test row"]
    assert found.notes == [
        "lyon: no healthy test row, so not known: average precision, false alarms per machine month, cost saving"
    ]


def test_one_row_a_machine_spans_no_time_that_false_alarms_could_be_counted_in():
    rows = pl.concat([machine(f"m{number}", hours=[5], alarms={5: 0.9}) for number in range(3)])
    assert report(rows).overall.metrics.false_alarms_per_machine_month is None


def test_a_model_that_beats_chance_and_every_rule_has_no_fault():
    found = report(with_references(many()), bootstrap=100).overall.sanity
    assert found.faults == []
    assert found.average_precision["class_prior"] == pytest.approx(found.base_rate, abs=1e-6)


@pytest.mark.parametrize(
    ("chosen", "references", "fault"),
    [
        ({}, {}, "not surely above a constant: 0.125 against 0.125, at worst by 0.000"),
        (
            GOOD,
            {"shuffled_labels": {25: 0.9, 26: 0.8, 27: 0.7}},
            "not surely above the luckiest model of shuffled labels",
        ),
        (GOOD, {"best_feature": {25: 0.9, 26: 0.8, 27: 0.7}}, "below the best single feature: "),
    ],
)
def test_a_model_that_is_no_better_than_chance_or_one_rule_has_a_fault_that_says_so(chosen, references, fault):
    found = report(with_references(many(chosen), **references), bootstrap=100)
    assert any(words.startswith(fault) for words in found.overall.sanity.faults)
    assert any(note.startswith(f"lyon: average precision is {fault}") for note in found.notes)


def test_few_failures_cannot_tell_a_model_from_chance():
    few = report(with_references(many(machines=8)), bootstrap=100).overall.sanity.faults
    assert few == ["not known to be above chance: failures in test rows are 4, 5 are needed"]


def test_without_references_or_resamples_a_model_is_not_known_to_beat_them():
    (first, *_) = report(many(), bootstrap=100).overall.sanity.faults
    assert first == "not known to be above a constant: no such candidate was judged on all its machines"
    (first, *_) = report(with_references(many()), bootstrap=0).overall.sanity.faults
    assert first.endswith("for there are no resamples of two failing machines")


def test_doubts_about_a_plants_rows_are_faults_of_the_plant_and_of_the_whole():
    other = with_references(many()).with_columns(plant=pl.lit("porto"))
    rows = by_plant(pl.concat([with_references(many()), other]))
    found = evaluate_rows(rows, how(bootstrap=100), {"porto": "rows were chosen"})
    assert found.overall.sanity.faults == ["not known: in porto rows were chosen"]
    assert found.plants["porto"].sanity.faults == ["not known: rows were chosen"]
    assert found.plants["lyon"].sanity.faults == []
