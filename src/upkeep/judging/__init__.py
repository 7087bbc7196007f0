"""How good predictions are: figures, money, comparisons and drift."""
