"""Batch scoring: the newest rows in; the prediction log, a table and a webhook out."""
