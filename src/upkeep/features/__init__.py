"""Features, labels and splits: what a model learns from."""
