"""Which models are live, which were, why, and whether another may follow them."""
