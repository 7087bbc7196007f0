"""What the service counts for Prometheus."""

from collections.abc import Iterable, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

from upkeep.serving.log_writer import LogWriter

SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)
PROBABILITIES = (0.001, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1)


class Counters:
    """One worker's counters, in a registry of their own."""

    def __init__(self, versions: Mapping[str, str], log: LogWriter | None) -> None:
        self._registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self._requests = Counter("upkeep_requests", "Requests answered", ["route", "status"], registry=registry)
        self._seconds = Histogram(
            "upkeep_request_seconds", "Time to answer", ["route"], buckets=SECONDS, registry=registry
        )
        self._probabilities = Histogram(
            "upkeep_probability", "Probabilities given out", ["plant"], buckets=PROBABILITIES, registry=registry
        )
        self._alarms = Counter("upkeep_alarms", "Answers above the threshold", ["plant"], registry=registry)
        self._warnings = Counter(
            "upkeep_warnings", "Warnings about the data or the model", ["plant", "code"], registry=registry
        )
        self._unanswered = Counter("upkeep_unanswered_machines", "Machines with unusable input", registry=registry)
        self._shadow = Counter("upkeep_shadow_requests", "Requests to the challenger", ["state"], registry=registry)
        self._shadow_alarms = Counter(
            "upkeep_shadow_alarms", "Machines both have answered", ["plant", "alarm"], registry=registry
        )
        self._shadow_up = Gauge("upkeep_shadow_up", "1: a challenger is loaded", registry=registry)
        models = Gauge("upkeep_model_info", "Models loaded", ["plant", "version"], registry=registry)
        for plant, version in versions.items():
            models.labels(plant, version).set(1)
        if log is not None:
            registry.register(log.status)

    def count_request(self, route: str, status: int, seconds: float) -> None:
        """Note an answered request."""
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def count_predictions(self, predictions: Iterable[Mapping[str, Any]], unanswered: int) -> None:
        """Note what was answered, and how many machines could not be."""
        for prediction in predictions:
            plant = prediction["plant"]
            self._probabilities.labels(plant).observe(prediction["probability"])
            if prediction["alarm"]:
                self._alarms.labels(plant).inc()
            for warning in prediction["warnings"]:
                self._warnings.labels(plant, warning["code"]).inc()
        if unanswered:
            self._unanswered.inc(unanswered)

    def tell_shadow(self, *, loaded: bool) -> None:
        """Note whether a challenger runs."""
        self._shadow_up.set(int(loaded))

    def count_shadow(self, state: str, alarms: Iterable[tuple[str, bool]] = ()) -> None:
        """Note what became of a request to the challenger: plant, and whether the alarms differ, of each machine."""
        self._shadow.labels(state).inc()
        for plant, differs in alarms:
            self._shadow_alarms.labels(plant, "differs" if differs else "same").inc()

    def render(self) -> bytes:
        """Return everything in Prometheus' text format."""
        return generate_latest(self._registry)
