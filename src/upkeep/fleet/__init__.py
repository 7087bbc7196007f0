"""The domain: what deliveries must hold, features, labels and splits; pure functions over frames."""
