"""Models: estimators, training, calibration, storage, scoring and explanation."""
