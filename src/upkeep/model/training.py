"""Candidates for each plant, judged on its validation rows: its own model, the fleet's, other kinds and baselines."""

import os
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from upkeep.core.errors import UpkeepError
from upkeep.core.params import Kind, Model, Params
from upkeep.core.types import Floats
from upkeep.judging.economics import best_threshold, break_even, tally_metrics
from upkeep.judging.episodes import judge_failures, tally_machines
from upkeep.judging.metrics import average_precision
from upkeep.judging.sanity import BEST_FEATURE, SHUFFLED
from upkeep.model.baselines import RANKINGS, Rule, class_prior, find_best_rule, fit_baseline
from upkeep.model.calibration import Calibration, Method, apply_calibration, fit_calibration
from upkeep.model.estimators import Fitted, Rows, fit
from upkeep.model.storage import TrainingRange, to_matrix

OUTCOME = ["plant", "machine", "time", "machine_model", "label", "hours_to_failure"]
"""What predictions keep of a row; the features are the columns after its ``weight``."""
FEW_FAILURES = 3
"""Validation rows with fewer failures than this cannot tell two models apart, nor place a threshold."""
TIE = 0.005
"""Average precisions closer than this are equal; then the cheaper model wins."""
SHUFFLES, SHUFFLED_ROWS, SHUFFLED_ROUNDS = 5, 2_500, 20
"""What chance reaches is told by the luckiest of a few small models, in less time than by a large one."""


class Splits(NamedTuple):
    """One plant's rows as the dataset stage writes them."""

    train: pl.DataFrame
    validation: pl.DataFrame
    test: pl.DataFrame


class Trained(NamedTuple):
    """A model and what it was trained on."""

    fitted: Fitted
    rows: int
    positives: int
    ranges: dict[str, TrainingRange]


class FleetModel(NamedTuple):
    """The fleet-wide model, and all plants' validation rows with its ``log_odds``."""

    trained: Trained
    validation: pl.DataFrame


class Candidate(NamedTuple):
    """One way of raising alarms in a plant, and how it did on the plant's validation rows.

    `predictions` are validation and test rows. Average precision is None where the plant's validation rows hold one
    class only, the cost where they hold no healthy one. `notes` say what was done otherwise than ``params.yaml`` asks
    for, and why.
    """

    name: str
    calibration: Calibration
    threshold: float
    predictions: pl.DataFrame
    average_precision: float | None
    cost: float | None
    notes: list[str]
    trained: Trained | None = None


class Selection(NamedTuple):
    """All candidates of one plant by name, which of them ships, and why."""

    candidates: dict[str, Candidate]
    chosen: str
    why: str
    failures: int


def train_fleet(plants: Mapping[str, Splits], params: Params) -> FleetModel | None:
    """Train one model on all plants' rows; None if there is one plant only.

    An UpkeepError is raised if plants differ in their features, or no plant has a training row.
    """
    names = [feature_names(splits.train) for splits in plants.values()]
    for plant, own in zip(plants, names, strict=True):
        if own != names[0]:
            raise UpkeepError(
                f"the plant has {len(own)} features that are not those of {next(iter(plants))} in their order",
                remedy="run `upkeep dataset` again, for all plants",
                plant=plant,
            )
    train = pl.concat([splits.train for splits in plants.values()])
    validation = pl.concat([splits.validation for splits in plants.values()])
    if train.is_empty():
        raise UpkeepError(
            "no plant has a training row, labelled and before the validation period",
            remedy="fetch more history, or lower dataset.split.validation_share and test_share",
        )
    if len(plants) == 1:
        return None
    trained = _train(params.model.kind, train, validation, params.model, _fleet_threads(params.parallel.jobs))
    return FleetModel(trained, _with_log_odds(validation, _scorer(trained)))


def train_plant(splits: Splits, fleet: FleetModel | None, params: Params) -> Selection:
    """Train a plant's own models and baselines and choose between its own and the fleet's."""
    trained = {"plant": _train(params.model.kind, splits.train, splits.validation, params.model)}
    if fleet:
        trained["fleet"] = fleet.trained
    for kind in params.model.compare:
        if kind != params.model.kind:
            trained[kind] = _train(kind, splits.train, splits.validation, params.model)
    method = params.model.calibration
    failures = _count_failures(splits.validation, params)
    candidates = {}
    for name, model in trained.items():
        borrowed = fleet.validation if fleet and name == "fleet" and failures < FEW_FAILURES else None
        settled = _settle(name, _scorer(model), splits, borrowed, method, params)
        notes = _training_notes(model) + settled.notes
        candidates[name] = settled._replace(trained=model, notes=notes)
    shuffled = _train_on_shuffled_labels(splits, params)
    candidates[SHUFFLED] = _settle(SHUFFLED, _scorer(shuffled), splits, None, method, params)
    rule = find_best_rule(splits.train, feature_names(splits.train))
    for name, rank in {**RANKINGS, BEST_FEATURE: rule.rank if rule else class_prior}.items():
        candidates[name] = _settle(name, fit_baseline(rank, splits.train), splits, None, "none", params)
    candidates[BEST_FEATURE].notes.insert(0, _describe_rule(rule))
    chosen, why = choose(candidates["plant"], candidates.get("fleet"), failures)
    return Selection(candidates, chosen, why, failures)


def choose(plant: Candidate, fleet: Candidate | None, failures: int) -> tuple[str, str]:
    """Return which of the two ships, and why in a sentence.

    The higher average precision on the plant's validation rows wins; of equal ones the cheaper; of equally cheap ones
    the fleet's, which has seen more failures. Where there are fewer than three failures to judge by, or none to learn
    from, it is the fleet's too. `failures` are those in the plant's validation rows.
    """
    if fleet is None or fleet.trained is None:
        return "plant", "there is no other plant to learn from"
    if plant.trained is None or not plant.trained.positives:
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
    return (
        "plant" if costs[0] < costs[1] else "fleet",
        f"{figures}: a tie, broken by validation cost, {costs[0]:.0f} against {costs[1]:.0f}",
    )


def best_f1_threshold(label: NDArray[np.integer[Any]], probability: Floats, weight: Floats) -> float:
    """Return the threshold with the highest F1, in the middle of the neighbouring ones that are nearly as good.

    Nearly as good is within 1% of the highest F1: the optimum is flat, and its exact place is chance. Arrays have shape
    (n_rows,) and at least one label 1.
    """
    order = np.argsort(-probability, kind="stable")
    descending = probability[order]
    found = np.cumsum((weight * label)[order])
    f1 = 2 * found / (np.cumsum(weight[order]) + found[-1])
    last = np.flatnonzero(np.append(np.diff(descending) < 0, True))  # rows of equal probability alarm together
    f1, at = f1[last], descending[last]
    good = f1 >= 0.99 * f1.max()
    best = int(f1.argmax())
    worse_above, worse_below = np.flatnonzero(~good[:best]), np.flatnonzero(~good[best:])
    highest = at[worse_above[-1] + 1 if worse_above.size else 0]
    # A threshold may lie anywhere down to the next lower probability without another row raising the alarm.
    lowest = at[best + worse_below[0]] if worse_below.size else at[-1]
    return float((highest + lowest) / 2)


def feature_names(rows: pl.DataFrame) -> list[str]:
    """Return the names of the feature columns: all after ``weight``."""
    return rows.columns[rows.columns.index("weight") + 1 :]


def find_ranges(train: pl.DataFrame, names: list[str]) -> dict[str, TrainingRange]:
    """Return the range of each feature in training rows, unknown values left out."""
    columns = train.select(pl.col(names).cast(pl.Float64).fill_nan(None))
    tables = {
        "minimum": columns.min(),
        "low": columns.quantile(0.01, "nearest"),
        "high": columns.quantile(0.99, "nearest"),
        "maximum": columns.max(),
    }
    return {name: TrainingRange(**{part: table[name][0] for part, table in tables.items()}) for name in names}


def _train(kind: Kind, train: pl.DataFrame, validation: pl.DataFrame, model: Model, threads: int = 1) -> Trained:
    names = feature_names(train)
    fitted = fit(kind, _to_rows(train, names), _to_rows(validation, names), names, model, threads)
    return Trained(fitted, train.height, int(train["label"].sum()), find_ranges(train, names))


def _train_on_shuffled_labels(splits: Splits, params: Params) -> Trained:
    """Train on labels that have nothing to do with their rows; of a few such models, return the luckiest.

    Labels that are shuffled may still go with a sensor that tells wear: that is luck, and a model must have more. They
    are LightGBM's whatever ``model.kind`` is: a Gaussian process takes minutes to learn nothing.
    """
    lightgbm = {**params.model.lightgbm, "n_estimators": SHUFFLED_ROUNDS}
    small = params.model.model_copy(update={"lightgbm": lightgbm})
    every = -(-splits.train.height // SHUFFLED_ROWS) or 1
    label = splits.validation["label"].cast(pl.Boolean).to_numpy()
    tried = []
    for seed in range(params.model.seed, params.model.seed + SHUFFLES):
        rows = shuffle_labels(splits.train, seed).gather_every(every)
        # Without validation rows nothing stops early: their labels, which are true, would keep what little is right.
        trained = _train("lightgbm", rows, rows.clear(), small)
        tried.append((np.nan_to_num(average_precision(label, _scorer(trained)(splits.validation))), trained))
    return max(tried, key=lambda trial: round(trial[0], 9))[1]


def shuffle_labels(rows: pl.DataFrame, seed: int) -> pl.DataFrame:
    """Give blocks of rows, in the order of machine and time, the ``label`` and ``weight`` of other blocks.

    A block is as long as the longest run of failing rows, so that labels resemble their neighbours' as before; there
    are ten at least. What is left over at the end keeps its labels.
    """
    runs = rows["label"].rle().struct.unnest()
    longest = runs.filter(value=1)["len"].max() or 1
    size = max(1, min(int(str(longest)), rows.height // 10))
    blocks = np.arange(rows.height // size * size).reshape(-1, size)
    order = np.random.default_rng(seed).permutation(blocks).ravel()
    taken = rows.select("label", "weight")[np.append(order, np.arange(order.size, rows.height))]
    return rows.with_columns(taken)


def _describe_rule(rule: Rule | None) -> str:
    if rule is None:
        return "training rows of one class tell no rule"
    return f"the {'higher' if rule.rises else 'lower'} {rule.feature}, the higher the risk"


def _fleet_threads(jobs: int) -> int:
    """Return half the cores: LightGBM's threads wait for one another, so one busy core would hold up all of them."""
    return max(1, (jobs if jobs > 0 else os.cpu_count() or 1) // 2)


def _to_rows(frame: pl.DataFrame, names: list[str]) -> Rows:
    weight = frame["weight"].cast(pl.Float64).to_numpy()
    return Rows(to_matrix(frame, names), frame["label"].to_numpy(), weight)


def _scorer(trained: Trained) -> Callable[[pl.DataFrame], Floats]:
    return lambda rows: trained.fitted.score(to_matrix(rows, list(trained.ranges)))


def _with_log_odds(rows: pl.DataFrame, score: Callable[[pl.DataFrame], Floats]) -> pl.DataFrame:
    return rows.select(OUTCOME).with_columns(log_odds=pl.Series(score(rows), dtype=pl.Float64))


def _settle(
    name: str,
    score: Callable[[pl.DataFrame], Floats],
    splits: Splits,
    borrowed: pl.DataFrame | None,
    method: Method,
    params: Params,
) -> Candidate:
    """Turn scores into probabilities and alarms, calibrated and with a threshold from validation rows.

    Where the plant's own are too few, these are `borrowed` rows with ``log_odds``.
    """
    scored = {"validation": _with_log_odds(splits.validation, score), "test": _with_log_odds(splits.test, score)}
    rows = scored["validation"] if borrowed is None else borrowed
    calibration, doubt = fit_calibration(method, rows["log_odds"].to_numpy(), rows["label"].to_numpy())
    threshold, worry = _place_threshold(_with_probability(rows, calibration), params)
    notes = ["calibration and threshold are from all plants' validation rows"] if borrowed is not None else []
    predictions = pl.concat(
        [
            _with_probability(scored[split], calibration).with_columns(split=pl.lit(split), candidate=pl.lit(name))
            for split in scored
        ]
    ).with_columns(alarm=pl.col("probability") >= threshold)
    own = predictions.filter(split="validation")
    area = average_precision(own["label"].cast(pl.Boolean).to_numpy(), own["probability"].to_numpy())
    return Candidate(
        name,
        calibration,
        threshold,
        predictions,
        None if np.isnan(area) else area,
        _cost(own, params),
        notes + [note for note in (doubt, worry) if note],
    )


def _with_probability(rows: pl.DataFrame, calibration: Calibration) -> pl.DataFrame:
    probability = apply_calibration(calibration, rows["log_odds"].to_numpy())
    return rows.with_columns(probability=pl.Series(probability, dtype=pl.Float64)).drop("log_odds")


def _place_threshold(rows: pl.DataFrame, params: Params) -> tuple[float, str | None]:
    """Return the threshold that ``model.threshold`` asks for, and a note if the rows cannot tell it."""
    judge = params.evaluate
    unknown = None if rows["label"].sum() else "no failure in validation rows"
    if rows.height and rows["label"].sum() == rows.height:  # where alarms are never false, one at each row costs least
        at = break_even(judge.costs) if params.model.threshold == "cost" else 0.5
        return at, f"no healthy validation row: the alarm is raised at {at:.3g}"
    if params.model.threshold == "cost":
        at = best_threshold(rows, judge.costs, judge.lead_time_hours, params.dataset.horizon_hours)
        return at, unknown and f"{unknown}: the alarm is raised above all that was seen there"
    if unknown:
        return 0.5, f"{unknown}: the alarm is raised at 0.5"
    # Machines count alike, however long their record.
    weight = rows.select(1 / pl.len().over("plant", "machine")).to_series().to_numpy()
    return best_f1_threshold(rows["label"].to_numpy(), rows["probability"].to_numpy(), weight), None


def _count_failures(validation: pl.DataFrame, params: Params) -> int:
    rows = validation.select(OUTCOME).with_columns(alarm=pl.lit(False), probability=pl.lit(0.0))
    return judge_failures(rows, params.evaluate.lead_time_hours, params.dataset.horizon_hours).height


def _cost(own: pl.DataFrame, params: Params) -> float | None:
    if own.is_empty():
        return None
    judge = params.evaluate
    tally = tally_machines(own.sort("plant", "machine", "time"), judge.lead_time_hours, params.dataset.horizon_hours)
    cost = float(tally_metrics(tally, np.ones((tally.height, 1)), judge.costs)["cost"].item())
    return None if np.isnan(cost) else cost


def _training_notes(trained: Trained) -> list[str]:
    if 0 < trained.positives < trained.rows:
        return []
    found = "there is none" if not trained.rows else "none is" if not trained.positives else "all are"
    return [f"of {trained.rows} training rows, {found} before a failure: the model is a constant"]
