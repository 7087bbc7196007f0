"""Trains each plant's candidates, judges them on validation rows, and chooses the plant's own model or the fleet's."""

from collections.abc import Iterator, Mapping
from itertools import chain
from typing import NamedTuple

import numpy as np
import polars as pl
from pydantic import TypeAdapter

from upkeep.core.errors import TooLittleDataError
from upkeep.core.names import KEYS
from upkeep.core.parallel import count_workers
from upkeep.core.params import Kind, Params
from upkeep.core.pieces import Frames, Recall, make_anew
from upkeep.core.types import Floats
from upkeep.judging.economics import tally_metrics
from upkeep.judging.episodes import judge_failures, tally_machines
from upkeep.judging.metrics import average_precision
from upkeep.judging.reports import TrainedCandidate
from upkeep.judging.sanity import BEST_FEATURE, SHUFFLED
from upkeep.model.alarm_rule import AlarmRule, fit_alarm_rule, raise_alarms
from upkeep.model.baselines import RANKINGS, Ranking, SingleFeature, class_prior, find_best_feature, fit_baseline
from upkeep.model.calibration import Calibration
from upkeep.model.estimators import KEPT, Fitted, Rows, fit, restore
from upkeep.model.labelled_rows import LabelledRows
from upkeep.model.storage import TrainingRange, to_matrix

OUTCOME = [*KEYS, "machine_model", "label", "hours_to_failure", "prevented"]  # what predictions keep of a row
JUDGED = TypeAdapter(dict[str, tuple[Calibration, TrainedCandidate]])
SEEN = TypeAdapter(tuple[int, int, dict[str, TrainingRange]])
COLUMNS_AT_ONCE = 8
"""Features whose ranges are computed at a time: a whole fleet's rows fit into memory as bins only."""
FEW_FAILURES = 3  # with fewer in validation rows, models cannot be told apart, nor a threshold be chosen
TIE = 0.005  # average precisions closer than this are equal; then the cheaper model wins
SHUFFLES, SHUFFLED_ROWS, SHUFFLED_ROUNDS = 5, 2_500, 20
"""The luckiest of a few small models shows what chance reaches, in less time than a large one."""


class Splits(NamedTuple):
    """One plant's rows as the dataset stage writes them: in memory, or as scans of files."""

    train: pl.DataFrame | pl.LazyFrame
    validation: pl.DataFrame | pl.LazyFrame
    test: pl.DataFrame | pl.LazyFrame


class Trained(NamedTuple):
    """A model and what it was trained on; `ranges` are by feature, empty for kinds that are not saved."""

    fitted: Fitted
    rows: int
    positives: int
    ranges: dict[str, TrainingRange]


class FleetModel(NamedTuple):
    """The fleet-wide model, and its alarm rule on all plants' validation rows if a plant has too few failures."""

    trained: Trained
    alarm: AlarmRule | None


class Candidate(NamedTuple):
    """One way of raising alarms in a plant: its `predictions` of validation and test rows, and a report on the former.

    Average precision is None where the plant's validation rows hold one class only, the cost where they hold no healthy
    one. Notes say how it departs from what ``params.yaml`` asks for, and why.
    """

    report: TrainedCandidate
    calibration: Calibration
    predictions: pl.DataFrame
    trained: Trained | None


class Selection(NamedTuple):
    """All candidates of one plant by name, which of them ships, and why; `failures` are those in validation rows."""

    candidates: dict[str, Candidate]
    chosen: str
    why: str
    failures: int


def train_fleet(plants: Mapping[str, Splits], params: Params, recall: Recall = make_anew) -> FleetModel | None:
    """Train one model on all plants' rows, or recall it; None if there is one plant only.

    It learns from at most ``model.fleet_rows`` training rows, and stops by as many validation rows. All plants have the
    same features, since one vocabulary makes them. A TooLittleDataError is raised if none has a training row.
    """
    train = LabelledRows(*(splits.train for splits in plants.values()), most=params.model.fleet_rows)
    if not train.height:
        raise TooLittleDataError(
            "no plant has a training row, labelled and before the validation period",
            remedy="fetch more history, or lower dataset.split.validation_share and test_share",
        )
    if len(plants) == 1:
        return None
    judged = [splits.validation for splits in plants.values()]
    validation, stopping = LabelledRows(*judged), LabelledRows(*judged, most=params.model.fleet_rows)
    # Half the cores: LightGBM's threads wait for one another, so one busy core would hold up all of them.
    threads = max(1, count_workers(params.parallel) // 2)
    trained = _train_kind(params.model.kind, train, stopping, params, recall, threads)
    known = validation.read(*OUTCOME)
    if all(_count_failures(known.filter(plant=plant), params) >= FEW_FAILURES for plant in plants):
        return FleetModel(trained, None)
    log_odds = _score_rows(validation, {"fleet": trained.fitted}, {})["fleet"]
    alarm = fit_alarm_rule(known, log_odds, params.model.calibration, params)
    note = "calibration and threshold are from all plants' validation rows"
    return FleetModel(trained, alarm._replace(notes=[note, *alarm.notes]))


def train_own(splits: Splits, params: Params, recall: Recall) -> None:
    """Train what a plant has without other plants' rows, for :func:`train_plant` to recall."""
    train, validation = LabelledRows(splits.train), LabelledRows(splits.validation)
    for kind in KEPT:
        if kind in (params.model.kind, *params.model.compare):
            _train_kind(kind, train, validation, params, recall)
    _fit_references(train, validation, params, recall)


def train_plant(
    splits: Splits, fleet: FleetModel | None, params: Params, recall: Recall = make_anew, *, references: bool = True
) -> Selection:
    """Train a plant's own models, or recall them, and choose its own or the fleet's.

    `references` are simple rules and models of shuffled labels, which the choice does without.
    """
    train, validation, test = (LabelledRows(rows) for rows in splits)
    trained = _train_models(train, validation, fleet, params, recall)
    models, rules = {name: model.fitted for name, model in trained.items()}, dict[str, Ranking]()
    notes = {name: _training_notes(model) for name, model in trained.items()}
    if references:
        models[SHUFFLED], rules, notes[BEST_FEATURE] = _fit_references(train, validation, params, recall)
    known = validation.read(*OUTCOME)
    failures = _count_failures(known, params)
    borrowed = fleet.alarm if fleet and failures < FEW_FAILURES else None

    def judge() -> Frames:
        scores, judged = _score_rows(validation, models, rules), {}
        for name, log_odds in scores.items():
            method = params.model.calibration if name in models else "none"
            alarm = (borrowed if name == "fleet" else None) or fit_alarm_rule(known, log_odds, method, params)
            alarm = alarm._replace(notes=notes.get(name, []) + alarm.notes)
            judged[name] = alarm.calibration, _judge_candidate(known, log_odds, alarm, trained.get(name), params)
        return {"log_odds": pl.DataFrame(scores), "judged": pl.DataFrame({"json": [JUDGED.dump_json(judged)]})}

    # A failure beyond the horizon changes nothing that is judged.
    near = pl.when(pl.col("hours_to_failure") <= params.dataset.horizon_hours).then("hours_to_failure")
    asked = (known.with_columns(hours_to_failure=near), borrowed, params.evaluate, params.dataset.horizon_hours)
    fitted = ((model.rows, model.positives, model.fitted.state) for model in trained.values())
    kept = recall(chain(_list_inputs(params.model, train, validation), asked, *fitted), judge)
    scores, ahead, candidates = _score_rows(test, models, rules), test.read(*OUTCOME), {}
    for name, (calibration, report) in JUDGED.validate_json(kept["judged"].item()).items():
        alarm = AlarmRule(calibration, report.threshold, report.notes)
        predictions = [
            raise_alarms(rows, log_odds, alarm).with_columns(split=pl.lit(split), candidate=pl.lit(name))
            for split, rows, log_odds in (
                ("validation", known, kept["log_odds"][name].to_numpy()),
                ("test", ahead, scores[name]),
            )
        ]
        candidates[name] = Candidate(report, calibration, pl.concat(predictions), trained.get(name))
    chosen, why = choose(candidates["plant"].report, candidates["fleet"].report if fleet else None, failures)
    return Selection(candidates, chosen, why, failures)


def choose(plant: TrainedCandidate, fleet: TrainedCandidate | None, failures: int) -> tuple[str, str]:
    """Return which of the two ships, and why in a sentence; `failures` are those in the plant's validation rows.

    The higher average precision on validation rows wins, in a tie the lower cost, and at equal cost the fleet's model,
    which has seen more failures. The fleet's also ships if the plant has fewer than three failures to judge by, or none
    to learn from.
    """
    if fleet is None:
        return "plant", "there is no other plant to learn from"
    if not plant.trained_positives:
        return "fleet", "the plant's training rows hold no failure"
    if failures < FEW_FAILURES:
        return "fleet", f"{failures} failures in the plant's validation rows are too few to tell the two apart"
    if plant.average_precision is None or fleet.average_precision is None:
        return "fleet", "the plant's validation rows, all of one class, cannot tell the two apart"
    own, other = plant.average_precision, fleet.average_precision
    figures = f"validation average precision {own:.3f} of the plant's own model, {other:.3f} of the fleet's"
    if abs(own - other) >= TIE:
        return ("plant" if own > other else "fleet"), figures
    costs = plant.cost or 0.0, fleet.cost or 0.0
    cheaper = "plant" if costs[0] < costs[1] else "fleet"
    return cheaper, f"{figures}: a tie, broken by validation cost, {costs[0]:.0f} against {costs[1]:.0f}"


def find_ranges(train: LabelledRows) -> dict[str, TrainingRange]:
    """Return the range of each feature in training rows, without unknown values."""
    ranges = dict[str, TrainingRange]()
    for start in range(0, len(train.features), COLUMNS_AT_ONCE):
        names = train.features[start : start + COLUMNS_AT_ONCE]
        columns = train.read(*names).select(pl.all().cast(pl.Float64).fill_nan(None))
        low, high = (columns.quantile(share, "nearest") for share in (0.01, 0.99))
        bounds = {"minimum": columns.min(), "low": low, "high": high, "maximum": columns.max()}
        ranges |= {name: TrainingRange(**{bound: row[name][0] for bound, row in bounds.items()}) for name in names}
    return ranges


def _train_models(
    train: LabelledRows, validation: LabelledRows, fleet: FleetModel | None, params: Params, recall: Recall
) -> dict[str, Trained]:
    """Return the models that compete in a plant: its own, the fleet's, and other kinds for comparison."""
    kinds: list[Kind] = [kind for kind in params.model.compare if kind != params.model.kind]
    trained = {"plant": _train_kind(params.model.kind, train, validation, params, recall)}
    if fleet:
        trained["fleet"] = fleet.trained
    return trained | {kind: _train_kind(kind, train, validation, params, recall) for kind in kinds}


def _train_kind(
    kind: Kind, train: LabelledRows, validation: LabelledRows, params: Params, recall: Recall, threads: int = 1
) -> Trained:
    made: list[Fitted] = []

    def make() -> Frames:
        rows = _read_labelled(train)
        made.append(fit(kind, rows, _read_labelled(validation), train.features, params.model, threads))
        ranges = find_ranges(train) if made[0].boosters else {}
        seen = SEEN.dump_json((len(rows.label), int(rows.label.sum()), ranges))
        return {"model": made[0].state, "seen": pl.DataFrame({"json": [seen]})}

    kept = recall(_list_inputs((kind, params.model), train, validation), make) if kind in KEPT else make()
    return Trained(made[0] if made else restore(kept["model"]), *SEEN.validate_json(kept["seen"].item()))


def _list_inputs(settings: object, *tables: LabelledRows) -> Iterator[object]:
    """Yield what names a kept result; its checksums read all rows, so they are computed only if asked for."""
    yield settings
    for table in tables:
        yield table.checksum


def _read_labelled(table: LabelledRows) -> Rows:
    outcome = table.read("label", "weight")
    return Rows(table.read_features(), outcome["label"].to_numpy(), outcome["weight"].cast(pl.Float64).to_numpy())


def _fit_references(
    train: LabelledRows, validation: LabelledRows, params: Params, recall: Recall
) -> tuple[Fitted, dict[str, Ranking], list[str]]:
    """Return the luckiest model of shuffled labels, simple rules by name, and a note on the best single feature."""

    def find() -> Frames:
        rule = find_best_feature(train.read, train.features)
        chance = _train_on_shuffled_labels(train, validation, params)
        return {"chance": chance.state, "rule": pl.DataFrame(rule._asdict() if rule else None)}

    kept = recall(_list_inputs((SHUFFLED, params.model), train, validation), find)
    rank, note = class_prior, "training rows of one class tell no rule"
    if not kept["rule"].is_empty():
        feature, rises, _ = kept["rule"].row(0)
        rank = SingleFeature(feature, rises, kept["rule"]["known"].to_numpy()).rank
        note = f"the {'higher' if rises else 'lower'} {feature}, the higher the risk"
    rules = {name: fit_baseline(rank, train.chunks()) for name, rank in {**RANKINGS, BEST_FEATURE: rank}.items()}
    return restore(kept["chance"]), rules, [note]


def _train_on_shuffled_labels(train: LabelledRows, validation: LabelledRows, params: Params) -> Fitted:
    """Train a few models on shuffled labels, and return the luckiest on validation rows.

    Shuffled labels may still agree with a sensor that shows wear by luck, which a real model must exceed. The models
    are LightGBM's whatever ``model.kind`` is: a Gaussian process takes minutes to learn nothing.
    """
    lightgbm = {**params.model.lightgbm, "n_estimators": SHUFFLED_ROUNDS}
    small = params.model.model_copy(update={"lightgbm": lightgbm})
    every = -(-train.height // SHUFFLED_ROWS) or 1
    outcome, (features, _, _) = train.read("label", "weight"), _read_labelled(train).as_array(SHUFFLED_ROWS)
    # Without validation rows, so that nothing stops early: their true labels would select what is right by chance.
    nothing = Rows(features[:0], np.empty(0, np.int64), np.empty(0))
    models = {}
    for seed in range(params.model.seed, params.model.seed + SHUFFLES):
        shuffled = shuffle_labels(outcome, seed).gather_every(every)
        rows = Rows(features, shuffled["label"].to_numpy(), shuffled["weight"].cast(pl.Float64).to_numpy())
        models[f"seed {seed}"] = fit("lightgbm", rows, nothing, train.features, small, threads=1)
    label = validation.read("label")["label"].cast(pl.Boolean).to_numpy()
    scores = _score_rows(validation, models, {})
    return models[max(models, key=lambda name: round(np.nan_to_num(average_precision(label, scores[name])), 9))]


def shuffle_labels(rows: pl.DataFrame, seed: int) -> pl.DataFrame:
    """Permute ``label`` and ``weight`` in blocks of rows, which are in the order of machine and time.

    A block is as long as the longest run of failing rows, so that labels still resemble their neighbours', and there
    are at least ten. The rows left over at the end keep their labels.
    """
    runs = rows["label"].rle().struct.unnest()
    longest = runs.filter(value=1)["len"].max() or 1
    size = max(1, min(int(str(longest)), rows.height // 10))
    blocks = np.arange(rows.height // size * size).reshape(-1, size)
    order = np.random.default_rng(seed).permutation(blocks).ravel()
    taken = rows.select("label", "weight")[np.append(order, np.arange(order.size, rows.height))]
    return rows.with_columns(taken)


def _score_rows(table: LabelledRows, models: Mapping[str, Fitted], rules: Mapping[str, Ranking]) -> dict[str, Floats]:
    """Return the log-odds of all rows by each model and rule; features are read once for all of them."""
    parts: dict[str, list[Floats]] = {name: [] for name in (*models, *rules)}
    for rows in table.chunks():
        matrix = to_matrix(rows, table.features)
        for name, found in parts.items():
            found.append(models[name].score(matrix) if name in models else rules[name](rows))
    return {name: np.concatenate(found) for name, found in parts.items()}


def _judge_candidate(
    rows: pl.DataFrame, log_odds: Floats, alarm: AlarmRule, trained: Trained | None, params: Params
) -> TrainedCandidate:
    own, judge = raise_alarms(rows, log_odds, alarm), params.evaluate
    area = average_precision(own["label"].cast(pl.Boolean).to_numpy(), own["probability"].to_numpy())
    tally = tally_machines(own.sort("plant", "machine", "time"), judge.lead_time_hours, params.dataset.horizon_hours)
    cost = float(tally_metrics(tally, np.ones((tally.height, 1)), judge.costs)["cost"].item())
    return TrainedCandidate(
        average_precision=None if np.isnan(area) else area,
        cost=None if np.isnan(cost) else cost,
        threshold=alarm.threshold,
        calibration=alarm.calibration.method,
        rounds=trained.fitted.rounds if trained else [],
        trained_rows=trained.rows if trained else None,
        trained_positives=trained.positives if trained else None,
        notes=alarm.notes,
    )


def _count_failures(rows: pl.DataFrame, params: Params) -> int:
    rows = rows.with_columns(alarm=pl.lit(False), probability=pl.lit(0.0))
    return judge_failures(rows, params.evaluate.lead_time_hours, params.dataset.horizon_hours).height


def _training_notes(trained: Trained) -> list[str]:
    if 0 < trained.positives < trained.rows:
        return []
    found = "there is none" if not trained.rows else "none is" if not trained.positives else "all are"
    return [f"of {trained.rows} training rows, {found} before a failure: the model is a constant"]
