"""Drafts of the data dictionary and of ``params.yaml`` from what deliveries hold: look, guess, draft."""
