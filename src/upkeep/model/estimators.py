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
KEPT: tuple[Kind, ...] = ("lightgbm", "logistic")  # kinds whose fitted models are a table, and so can outlast a run
CHUNK_ROWS = 4_096  # rows scored at a time by pipelines: a Gaussian process needs memory for chunk times training rows


class Rows(NamedTuple):
    """Labelled rows: features of shape (n_rows, n_features), NaN where unknown; label and weight of shape (n_rows,).

    Features that are not one array are chunks that LightGBM reads.
    """

    features: Floats32 | list[lgb.Sequence]
    label: NDArray[np.integer[Any]]
    weight: Floats

    def as_array(self, most: int) -> tuple[Floats32, NDArray[np.integer[Any]], Floats]:
        """Return features, label and weight as arrays, of every n-th row if there are more than `most`."""
        every = -(-len(self.label) // most) or 1
        chunks = self.features if isinstance(self.features, list) else [self.features]
        starts = np.cumsum([0, *map(len, chunks)])
        parts = [chunk[:][-start % every :: every] for chunk, start in zip(chunks, starts, strict=False)]
        return np.concatenate(parts), self.label[::every], self.weight[::every]


class RoundedScaler(StandardScaler):  # type: ignore[misc]  # scikit-learn ships no types
    """Standardises by means and deviations that are the same on every processor."""

    def fit(self, X: Floats, y: None = None, sample_weight: None = None) -> "RoundedScaler":  # noqa: ARG002, N803  # scikit-learn's names
        """Fit as scikit-learn's scaler does, and round."""
        super().fit(X)
        for name in ("mean_", "scale_"):
            setattr(self, name, significant(getattr(self, name), MEASURED))
        return self


class Fitted(NamedTuple):
    """A fitted model: `score` maps features of shape (n_rows, n_features) to log-odds of shape (n_rows,).

    `state` is the table from which :func:`restore` makes it again, empty for kinds that are not among `KEPT`.
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
    """Return the fitted model of a state: LightGBM's texts, or a logistic regression's terms, a row per feature."""
    # Scored from the text, as the saved model will be; text can be sent to other processes, boosters cannot.
    return Fitted(partial(_score_boosters if "text" in state.columns else _score_terms, state), state)


def fit(kind: Kind, train: Rows, validation: Rows, names: Sequence[str], model: Model, threads: int) -> Fitted:
    """Fit one kind of model; where training rows hold one class only, the result is a constant.

    LightGBM stops early on validation rows, and its result does not depend on `threads`. The results of other kinds
    would, so they take one thread, and at most `PIPELINE_ROWS` rows. An UpkeepError is raised if LightGBM refuses its
    parameters.
    """
    if kind == "lightgbm" and len(train.label):
        return _fit_boosters(train, validation, names, model, threads)
    if not has_both_classes(train.label):
        return restore(_tabulate_terms(np.zeros(len(names)), prior_log_odds(train.label, train.weight)))
    return _fit_pipeline(kind, train, model)


def make_estimator(kind: Kind, model: Model, n_features: int) -> Pipeline:
    """Return an unfitted scikit-learn pipeline of a kind other than ``lightgbm``."""
    seed = model.seed
    classifiers = {
        # No early stopping: it would draw validation rows that are neighbours in time of its training rows. As many
        # bins as LightGBM has in params.yaml: each takes half a millisecond to find among weighted rows.
        "hist_gradient_boosting": HistGradientBoostingClassifier(
            max_bins=63, max_leaf_nodes=15, early_stopping=False, random_state=seed
        ),
        "random_forest": RandomForestClassifier(min_samples_leaf=20, n_jobs=1, random_state=seed),
        # Newton's method reaches the optimum; where other solvers stop short of it depends on the last digits.
        "logistic": LogisticRegression(C=0.1, solver="newton-cholesky"),
        "gaussian_process": GaussianProcessClassifier(
            ConstantKernel() * RBF(length_scale=np.sqrt(n_features)), random_state=seed
        ),
    }
    # Trees take unknown values, but cannot bin a column without any known one.
    impute = SimpleImputer(strategy="median", keep_empty_features=True)
    scale = [RoundedScaler()] if kind in ("logistic", "gaussian_process") else []
    return make_pipeline(impute, *scale, classifiers[kind])


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
    # Average precision, which a few failures decide, would sometimes stop after two trees: log-loss is steadier.
    fixed = {"objective": "binary", "metric": "binary_logloss", "verbosity": -1}
    settings = {**model.lightgbm, **fixed, **run, "deterministic": True, "force_row_wise": True}
    rounds = settings.pop("n_estimators", 100)
    if len(train.label) == 1:  # of which LightGBM cannot draw a share
        settings |= {"bagging_freq": 0, "subsample_freq": 0}
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
    """Return the seed by which LightGBM samples an array's rows to bin them, which it does not derive for chunks."""
    nothing = lgb.Dataset(np.zeros((2, 1)), [0, 1], params={"verbosity": -1})
    text = lgb.train({"seed": seed, "verbosity": -1}, nothing, 1).model_to_string()
    return int(text.partition("[data_random_seed: ")[2].partition("]")[0])


def _fit_pipeline(kind: Kind, train: Rows, model: Model) -> Fitted:
    features, label, weight = train.as_array(PIPELINE_ROWS)
    estimator, shift = make_estimator(kind, model, features.shape[1]), 0.0
    settings = {f"{estimator.steps[-1][0]}__sample_weight": weight}
    if kind == "gaussian_process":  # which takes no weights
        drawn = _draw_cases(label, weight, model)
        shift = float(logit(np.average(label, weights=weight)) - logit(np.mean(label[drawn])))
        features, label, settings = features[drawn], label[drawn], {}
    with threadpool_limits(1):
        estimator.fit(features.astype(np.float64), label, **settings)
    if kind == "logistic":
        impute, scale, regression = (step for _, step in estimator.steps)
        slope, intercept = significant(regression.coef_[0], FITTED), significant(regression.intercept_, FITTED)
        return restore(_tabulate_terms(slope, intercept, impute.statistics_, scale.mean_, scale.scale_))
    return Fitted(partial(_score_pipeline, estimator, shift))


def _draw_cases(label: NDArray[np.integer[Any]], weight: Floats, model: Model) -> NDArray[np.intp]:
    """Draw rows of either class by weight, as many of each if there are enough: a case-control sample.

    Log-odds of a model fitted on it are to be shifted (King and Zeng 2001, Logistic regression in rare events data,
    section 4.1).
    """
    rng, drawn = np.random.default_rng(model.seed), []
    for rows in (np.flatnonzero(label == value) for value in (0, 1)):
        most = max(1, min(model.gaussian_process_rows // 2, rows.size))
        share = weight[rows] / weight[rows].sum()
        drawn.append(np.sort(rng.choice(rows, size=most, replace=False, p=share)))
    return np.concatenate(drawn)


def _score_pipeline(estimator: Pipeline, shift: float, features: Floats32) -> Floats:
    chunks = [features[start : start + CHUNK_ROWS] for start in range(0, len(features), CHUNK_ROWS)]
    with threadpool_limits(1):
        # In float32, which the features are in, probabilities above 1 - 6e-8 would all be 1.
        scores = [logit(estimator.predict_proba(chunk.astype(np.float64))[:, 1]) for chunk in chunks]
    return (np.concatenate([np.empty(0), *scores]) + shift).round(LOG_ODDS)


def _tabulate_terms(
    slope: Floats, intercept: ArrayLike, unknown: ArrayLike = 0.0, mean: ArrayLike = 0.0, scale: ArrayLike = 1.0
) -> pl.DataFrame:
    """Return a logistic regression as a table: a row per feature; `unknown` stands in for values not known."""
    parts = {"slope": slope, "intercept": intercept, "unknown": unknown, "mean": mean, "scale": scale}
    return pl.DataFrame({name: np.broadcast_to(part, slope.shape) for name, part in parts.items()})


def _score_terms(state: pl.DataFrame, features: Floats32) -> Floats:
    total = np.full(len(features), state["intercept"][0])
    for values, term in zip(features.T, state.iter_rows(named=True), strict=True):
        known = np.where(np.isnan(values), term["unknown"], values.astype(np.float64))
        # One feature after the other: BLAS adds in an order that depends on the processor.
        total += term["slope"] * ((known - term["mean"]) / term["scale"])
    return total.round(LOG_ODDS)
