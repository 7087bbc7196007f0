"""What a table must hold: one definition for pipeline, batch scoring and service."""
