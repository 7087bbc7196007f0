"""What people read: the model card, the experiment log, notebooks and the data dictionary as a page."""
