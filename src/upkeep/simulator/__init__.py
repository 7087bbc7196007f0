"""The default source: a fleet whose deliveries break as real ones do."""
