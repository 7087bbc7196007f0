"""Models: estimators, training, evaluation, money and storage; pure functions over frames and arrays."""
