"""Where each stage reads and writes, relative to the repository's root; the same names stand in ``dvc.yaml``."""

from pathlib import Path

PARAMS = Path("params.yaml")

RAW = Path("data/raw")
MANIFEST = RAW / "manifest.json"
INTERIM = Path("data/interim")
QUARANTINE = INTERIM / "quarantine"
PROCESSED = Path("data/processed/plants")
PREDICTIONS = Path("data/predictions")
MODELS = Path("models/plants")
MODEL_METADATA = "model.json"  # what describes a model in its folder

GOLDEN = Path("models/golden")

REPORTS = Path("reports")
DATA_QUALITY = REPORTS / "data_quality.json"
DATASET = REPORTS / "dataset.json"
METRICS = REPORTS / "metrics.json"
EDA = REPORTS / "eda.html"
EVALUATION = REPORTS / "evaluation"
TRAINING = REPORTS / "training.json"
MODEL_QUALITY = REPORTS / "model_quality.html"
DRIFT = REPORTS / "drift"
MONITORING = REPORTS / "monitoring"
MODEL_CARD = REPORTS / "model_card.md"
RUN = REPORTS / "run.json"
EXPERIMENTS = REPORTS / "experiments.csv"

LOCAL = Path(".upkeep")  # What belongs to this checkout only and to no stage: times, runs not yet sent. Ignored by git.
RETRAINING = LOCAL / "retraining.txt"  # what `upkeep retrain` said last
