"""The kinds of model that ``model.kind`` names, all fitted and scored alike."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import lightgbm as lgb
import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.gaussian_process import GaussianProcessClassifier
from sklearn.gaussian_process.kernels import RBF, ConstantKernel
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # ships none

from upkeep.core.errors import UpkeepError
from upkeep.core.params import Kind, Model
from upkeep.core.rounding import FITTED, LOG_ODDS, MEASURED, significant
from upkeep.core.types import Floats, Floats32
from upkeep.judging.metrics import has_both_classes
from upkeep.model.calibration import logit, prior_log_odds
from upkeep.model.storage import booster_names, mean_log_odds, to_text
from upkeep.model.trees import check_trees

PIPELINE_ROWS = 100_000
"""Rows that kinds other than LightGBM are fitted on at most: they hold several copies in double precision."""
KEPT: tuple[Kind, ...] = ("lightgbm", "logistic")
"""Kinds whose fitted models can be put in words, and so outlast a run."""
CHUNK_ROWS = 4_096
"""Rows scored at a time by pipelines: a Gaussian process needs memory for chunk times training rows."""


class Rows(NamedTuple):
    """Labelled rows: features of shape (n_rows, n_features), NaN where unknown; label and weight of shape (n_rows,).

    Features that are not held as one array are read by LightGBM chunk by chunk.
    """

    features: Floats32 | list[lgb.Sequence]
    label: NDArray[np.integer[Any]]
    weight: Floats

    def as_array(self, most: int) -> tuple[Floats32, NDArray[np.integer[Any]], Floats]:
        """Return features, label and weight of these rows; of more than `most`, of some that lie evenly among them."""
        every = -(-len(self.label) // most) or 1
        chunks = self.features if isinstance(self.features, list) else [self.features]
        starts = np.cumsum([0, *map(len, chunks)])
        parts = [chunk[:][-start % every :: every] for chunk, start in zip(chunks, starts, strict=False)]
        return np.concatenate(parts), self.label[::every], self.weight[::every]


class Fitted(NamedTuple):
    """A fitted model: `score` maps features of shape (n_rows, n_features) to log-odds of shape (n_rows,).

    `state` is all that it consists of, from which :func:`restore` makes it again; empty for kinds not among `KEPT`.
    """

    score: Callable[[Floats32], Floats]
    state: pl.DataFrame = pl.DataFrame()

    @property
    def boosters(self) -> list[str]:
        """LightGBM's models as text; none for other kinds."""
        return self.state.to_dict(as_series=False).get("text", [])

    @property
    def rounds(self) -> list[int]:
        """Their numbers of trees."""
        return self.state.to_dict(as_series=False).get("rounds", [])


def restore(state: pl.DataFrame) -> Fitted:
    """Return the fitted model of a state: LightGBM's texts, or what a logistic regression does to each feature."""
    # Scored from the text, as the saved model will be; text also travels to other processes, boosters do not.
    return Fitted(partial(_score_boosters if "text" in state.columns else _score_line, state), state)


def fit(kind: Kind, train: Rows, validation: Rows, names: Sequence[str], model: Model, threads: int) -> Fitted:
    """Fit one kind of model; where training rows hold one class only, the result is a constant.

    LightGBM stops early on validation rows, and its result does not depend on `threads`; the other kinds take one
    thread, since theirs would, and `PIPELINE_ROWS` rows at most. An UpkeepError is raised if LightGBM refuses its
    parameters.
    """
    if kind == "lightgbm" and len(train.label):
        return _fit_boosters(train, validation, names, model, threads)
    if not has_both_classes(train.label):
        prior = prior_log_odds(train.label, train.weight)
        return restore(_state_line(np.zeros(len(names)), prior))
    return _fit_gaussian_process(train, model) if kind == "gaussian_process" else _fit_pipeline(kind, train, model)


def make_estimator(kind: Kind, model: Model, n_features: int) -> Pipeline:
    """Return an unfitted scikit-learn pipeline of a kind other than ``lightgbm``."""
    impute = SimpleImputer(strategy="median", keep_empty_features=True)
    seed = model.seed
    match kind:
        case "hist_gradient_boosting":
            # Imputed, for it cannot bin a column without values. No early stopping: the validation rows that it would
            # draw are neighbours in time of its training rows. Bins as LightGBM's here: each bound that it seeks among
            # weighted rows takes it half a millisecond.
            classifier = HistGradientBoostingClassifier(
                max_bins=63, max_leaf_nodes=15, early_stopping=False, random_state=seed
            )
            return make_pipeline(impute, classifier)
        case "random_forest":
            return make_pipeline(
                impute, RandomForestClassifier(n_estimators=100, min_samples_leaf=20, n_jobs=1, random_state=seed)
            )
        case "logistic":
            # Newton's steps end at the optimum itself; where others stop short of it depends on the last digits.
            return make_pipeline(impute, StandardScaler(), LogisticRegression(C=0.1, solver="newton-cholesky"))
        case "gaussian_process":
            kernel = ConstantKernel() * RBF(length_scale=np.sqrt(n_features))
            return make_pipeline(impute, StandardScaler(), GaussianProcessClassifier(kernel, random_state=seed))
    raise ValueError(f"{kind} is not a scikit-learn pipeline")


def _fit_boosters(train: Rows, validation: Rows, names: Sequence[str], model: Model, threads: int) -> Fitted:
    texts, rounds = [], []
    for seed in range(model.seed, model.seed + model.ensemble):
        booster = _grow(train, validation, names, model, {"seed": seed, "num_threads": threads})
        rounds.append(booster.best_iteration if booster.best_iteration > 0 else booster.current_iteration())
        texts.append(to_text(booster, rounds[-1]))
        try:
            check_trees(texts[-1], booster_names(names))
        except ValueError as error:
            what = f"LightGBM grew a booster that cannot be saved: {error}"
            raise UpkeepError(what, remedy="correct model.lightgbm in params.yaml: no linear_tree") from error
    return restore(pl.DataFrame({"text": texts, "rounds": rounds}))


def _score_boosters(state: pl.DataFrame, features: Floats32) -> Floats:
    return mean_log_odds([lgb.Booster(model_str=text) for text in state["text"]], features)


def _grow(train: Rows, validation: Rows, names: Sequence[str], model: Model, run: dict[str, int]) -> lgb.Booster:
    # Stopping by average precision, which a few failures decide, would at times keep two trees: log-loss is steadier.
    fixed = {"objective": "binary", "metric": "binary_logloss", "verbosity": -1}
    settings = {**model.lightgbm, **fixed, **run, "deterministic": True, "force_row_wise": True}
    rounds = settings.pop("n_estimators", 100)
    if isinstance(train.features, list):
        settings.setdefault("data_random_seed", _derive_data_seed(run["seed"]))
    columns = booster_names(names)
    try:
        data = lgb.Dataset(train.features, train.label, weight=train.weight, feature_name=columns, params=settings)
        if not (model.early_stopping_rounds and has_both_classes(validation.label)):  # else there is nothing to stop by
            return lgb.train(settings, data, rounds)
        judged = lgb.Dataset(validation.features, validation.label, data, params=settings).construct()
        judged.set_field("weight", validation.weight)  # LightGBM leaves out weights that are all 1, and counts 0 then
        stop = lgb.early_stopping(model.early_stopping_rounds, verbose=False)
        return lgb.train(settings, data, rounds, valid_sets=[judged], callbacks=[stop])
    except lgb.basic.LightGBMError as error:
        what = f"LightGBM refuses to train: {error}"
        raise UpkeepError(what, remedy="correct model.lightgbm in params.yaml") from error


def _derive_data_seed(seed: int) -> int:
    """Return by which seed LightGBM samples an array's rows to bin them; it derives none where it reads chunks."""
    nothing = lgb.Dataset(np.zeros((2, 1)), [0, 1], params={"verbosity": -1})
    text = lgb.train({"seed": seed, "verbosity": -1}, nothing, 1).model_to_string()
    return int(text.partition("[data_random_seed: ")[2].partition("]")[0])


def _fit_pipeline(kind: Kind, train: Rows, model: Model) -> Fitted:
    features, label, weight = train.as_array(PIPELINE_ROWS)
    estimator = make_estimator(kind, model, features.shape[1])
    _fit_steps(estimator, features, label, weight)
    if kind == "logistic":
        impute, scale, line = (step for _, step in estimator.steps)
        return restore(_state_line(line.coef_[0], line.intercept_[0], impute.statistics_, scale.mean_, scale.scale_))
    return Fitted(lambda features: _score_pipeline(estimator, features).round(LOG_ODDS))


def _state_line(
    slope: Floats, intercept: ArrayLike, unknown: ArrayLike = 0.0, mean: ArrayLike = 0.0, scale: ArrayLike = 1.0
) -> pl.DataFrame:
    parts = {"slope": slope, "intercept": intercept, "unknown": unknown, "mean": mean, "scale": scale}
    return pl.DataFrame({name: np.broadcast_to(part, slope.shape) for name, part in parts.items()})


def _score_line(state: pl.DataFrame, features: Floats32) -> Floats:
    """Return a logistic regression's log-odds of features, with medians for those not known, standardised."""
    total = np.full(len(features), state["intercept"][0])
    for values, part in zip(features.T, state.iter_rows(named=True), strict=True):
        known = np.where(np.isnan(values), part["unknown"], values.astype(np.float64))
        # One feature after the other: BLAS adds in an order of the processor's own.
        total += part["slope"] * ((known - part["mean"]) / part["scale"])
    return total.round(LOG_ODDS)


def _fit_gaussian_process(train: Rows, model: Model) -> Fitted:
    """Fit on a case-control subsample, then shift the log-odds back to the full rows' class shares.

    King and Zeng 2001, Logistic regression in rare events data, section 4.1. Rows are drawn by weight, since a Gaussian
    process takes none.
    """
    features, label, weight = train.as_array(PIPELINE_ROWS)
    rng = np.random.default_rng(model.seed)
    of_either = (np.flatnonzero(label == value) for value in (0, 1))
    drawn = np.concatenate([_draw(rng, rows, weight, model.gaussian_process_rows // 2) for rows in of_either])
    estimator = make_estimator("gaussian_process", model, features.shape[1])
    _fit_steps(estimator, features[drawn], label[drawn])
    shares = np.average(label, weights=weight), np.mean(label[drawn])
    shift = logit(np.array(shares[0])) - logit(np.array(shares[1]))
    return Fitted(lambda features: (_score_pipeline(estimator, features) + shift).round(LOG_ODDS))


def _draw(rng: np.random.Generator, rows: NDArray[np.intp], weight: Floats, most: int) -> NDArray[np.intp]:
    share = weight[rows] / weight[rows].sum()
    return np.sort(rng.choice(rows, size=max(1, min(most, rows.size)), replace=False, p=share))


def _fit_steps(
    estimator: Pipeline, features: Floats32, label: NDArray[np.integer[Any]], weight: Floats | None = None
) -> None:
    """Fit a pipeline step by step, each on what the rounded steps before it make of the features."""
    with threadpool_limits(1):
        rows = features.astype(np.float64)
        for step in estimator[:-1]:
            step.fit(rows)
            if isinstance(step, StandardScaler):
                step.mean_, step.scale_ = significant(step.mean_, MEASURED), significant(step.scale_, MEASURED)
            rows = step.transform(rows)
        classifier = estimator[-1]
        classifier.fit(rows, label, **({} if weight is None else {"sample_weight": weight}))
        if isinstance(classifier, LogisticRegression):
            classifier.coef_ = significant(classifier.coef_, FITTED)
            classifier.intercept_ = significant(classifier.intercept_, FITTED)


def _score_pipeline(estimator: Pipeline, features: Floats32) -> Floats:
    if not len(features):
        return np.empty(0)
    chunks = [features[start : start + CHUNK_ROWS] for start in range(0, len(features), CHUNK_ROWS)]
    with threadpool_limits(1):
        # In float32, as the features are, probabilities above 1 - 6e-8 would all be 1.
        prepared = (estimator[:-1].transform(chunk.astype(np.float64)) for chunk in chunks)
        return np.concatenate([_log_odds(estimator[-1], rows) for rows in prepared])


def _log_odds(classifier: Any, rows: Floats) -> Floats:
    if isinstance(classifier, HistGradientBoostingClassifier):
        log_odds: Floats = classifier.decision_function(rows)
        return log_odds
    return logit(classifier.predict_proba(rows)[:, 1])
