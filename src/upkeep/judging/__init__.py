"""How good predictions are: metrics, money, comparisons and drift."""
