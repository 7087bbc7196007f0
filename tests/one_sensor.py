"""A data dictionary of one sensor, for deliveries of a line or two."""

KEY = {"type": "text", "role": "key", "meaning": ""}
TIMED = {"plant": KEY, "machine": KEY, "time": {**KEY, "type": "time"}}
TEXT = {"type": "text", "role": "attribute", "required": False, "meaning": ""}
DICTIONARY = {
    "telemetry": {**TIMED, "heat": {"role": "sensor", "range": [0, 100], "meaning": ""}},
    "events": {**TIMED, "kind": KEY, "code": TEXT},
    "machines": {"plant": KEY, "machine": KEY, "model": TEXT, "installed": {**TEXT, "type": "time"}},
}
