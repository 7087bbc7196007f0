"""The service's metrics for Prometheus."""

from collections.abc import Iterable, Mapping
from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

from upkeep.scoring.prediction_log import Prediction
from upkeep.serving.log_writer import LogWriter

SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)
PROBABILITIES = (0.001, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1)


class Counters:
    """One worker's metrics, in a registry of their own."""

    def __init__(self, versions: Mapping[str, str], log: LogWriter | None) -> None:
        self._registry = CollectorRegistry()
        counter, gauge = partial(Counter, registry=self._registry), partial(Gauge, registry=self._registry)
        histogram = partial(Histogram, registry=self._registry)
        ProcessCollector(registry=self._registry)
        self._requests = counter("upkeep_requests", "Requests answered", ["route", "status"])
        self._seconds = histogram("upkeep_request_seconds", "Time to answer", ["route"], buckets=SECONDS)
        self._probabilities = histogram(
            "upkeep_probability", "Probabilities given out", ["plant"], buckets=PROBABILITIES
        )
        self._alarms = counter("upkeep_alarms", "Answers above the threshold", ["plant"])
        self._warnings = counter("upkeep_warnings", "Warnings about the data or the model", ["plant", "code"])
        self._unanswered = counter("upkeep_unanswered_machines", "Machines with unusable input")
        self.shadow_requests = counter("upkeep_shadow_requests", "Requests to the challenger", ["state"])
        self.shadow_alarms = counter("upkeep_shadow_alarms", "Machines both have answered", ["plant", "alarm"])
        self.shadow_up = gauge("upkeep_shadow_up", "1: a challenger is loaded")
        models = gauge("upkeep_model_info", "Models loaded", ["plant", "version"])
        for plant, version in versions.items():
            models.labels(plant, version).set(1)
        if log is not None:
            self._registry.register(log)

    def count_request(self, route: str, status: int, seconds: float) -> None:
        """Count an answered request."""
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def count_predictions(self, predictions: Iterable[Prediction], unanswered: int) -> None:
        """Count predictions, and machines that could not be answered."""
        for prediction in predictions:
            plant = prediction["plant"]
            self._probabilities.labels(plant).observe(prediction["probability"])
            self._alarms.labels(plant).inc(prediction["alarm"])
            for warning in prediction["warnings"]:
                self._warnings.labels(plant, warning["code"]).inc()
        self._unanswered.inc(unanswered)

    def render(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return generate_latest(self._registry)
