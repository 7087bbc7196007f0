"""The service: raw telemetry in, the risk of each machine out."""
