"""The stages of ``dvc.yaml``: each file reads, calls and writes."""
