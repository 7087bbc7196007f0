"""upkeep: one failure-risk model per plant, trained again whenever data arrives."""

__version__ = "0.1.0"
