"""The measurements behind the figures in the docs, each beside a peer: ``python -m bench [measurement ...]``."""
