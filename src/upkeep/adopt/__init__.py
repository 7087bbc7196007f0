"""Drafts of the data dictionary and of ``params.yaml``, guessed from what deliveries hold."""
