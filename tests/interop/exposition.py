"""Every metric of `semconv` as a Prometheus target serves it, with made-up labels and numbers that grow."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import product

from interop.dashboards import load
from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from otel_ml import semconv
from otel_ml.semconv import Metric

promql = load("_promql")

Family = CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily

METRICS = tuple(value for value in vars(semconv).values() if isinstance(value, Metric))

QUIET = "quiet"
"""A model that never failed, and never saw a value that is missing or out of range."""

VALUES: Mapping[str, tuple[str, ...]] = {
    semconv.MODEL_NAME: ("churn", QUIET),
    semconv.MODEL_VERSION: ("3",),
    semconv.VARIANT_NAME: ("a",),
    semconv.OPERATION_NAME: ("predict",),
    semconv.ERROR_TYPE: ("", "ValueError"),
    semconv.SCORE_TYPE: ("probability",),
    semconv.UNCERTAINTY_TYPE: ("margin",),
    semconv.PREDICTION_LABEL: ("true", "false"),
    semconv.FEATURE_NAME: ("", "age", "income"),
    semconv.FEATURE_CATEGORY: ("DE", "FR"),
    semconv.FEATURE_STATE: semconv.STATES,
    semconv.BASELINE_ID: ("b3",),
    semconv.DRIFT_TARGET: ("feature", "score"),
    semconv.DRIFT_STATISTIC: ("psi", "ks", "states"),
    semconv.DRIFT_LEVEL: semconv.STATUSES[1:],
    semconv.DRIFT_STATUS_NAME: semconv.STATUSES,
    semconv.DRIFT_REASON_CODE: ("psi",),
    semconv.DRIFT_BIN: ("(0, 1]",),
    semconv.DRIFT_SIDE: ("baseline", "current"),
    semconv.MONITORED_SERVICE_NAME: ("churn-api",),
    semconv.MONITORED_SERVICE_NAMESPACE: ("shop",),
    semconv.REASON: ("queue_full",),
    semconv.RECEIVER: ("otlp",),
    semconv.TRANSPORT: ("grpc",),
}


def label_sets(metric: Metric) -> Iterator[dict[str, str]]:
    """Sets of labels that occur together; an attribute without a value is left out."""
    attributes = [name for name in metric.attributes if name in VALUES]
    for values in product(*(VALUES[name] for name in attributes)):
        chosen = dict(zip(attributes, values, strict=True))
        if _occurs(chosen):
            yield {promql.label(name): value for name, value in chosen.items() if value}


def _occurs(chosen: Mapping[str, str]) -> bool:
    named = bool(chosen.get(semconv.FEATURE_NAME))
    if semconv.FEATURE_NAME in chosen and named != (chosen.get(semconv.DRIFT_TARGET, "feature") == "feature"):
        return False
    unusual = chosen.get(semconv.ERROR_TYPE) or chosen.get(semconv.FEATURE_STATE, "ok") != "ok"
    return not (chosen.get(semconv.MODEL_NAME) == QUIET and unusual)


class Exposition(Collector):
    """All families; counts grow by one row of labels and scrape."""

    def __init__(self) -> None:
        self._scrapes = 0

    def collect(self) -> Iterator[Family]:
        """The families of one scrape."""
        self._scrapes += 1
        for metric in METRICS:
            yield from self._families(metric)

    def _families(self, metric: Metric) -> Iterator[Family]:
        name = promql.prometheus_name(metric)
        for labels in label_sets(metric):
            keys, values = list(labels), list(labels.values())
            if metric.kind == "counter":
                counter = CounterMetricFamily(name, metric.description, labels=keys)
                counter.add_metric(values, self._scrapes)
                yield counter
            elif metric.kind == "histogram":
                yield self._histogram(HistogramMetricFamily(name, metric.description, labels=keys), values)
            else:
                gauge = GaugeMetricFamily(name, metric.description, labels=keys)
                gauge.add_metric(values, self._gauge(metric))
                yield gauge

    def _histogram(self, family: HistogramMetricFamily, values: list[str]) -> HistogramMetricFamily:
        buckets = [("0.5", self._scrapes), ("1.0", 3 * self._scrapes), ("+Inf", 4 * self._scrapes)]
        family.add_metric(values, buckets, sum_value=2.0 * self._scrapes)
        return family

    def _gauge(self, metric: Metric) -> float:
        known = {semconv.DRIFT_REASON: 1, semconv.DRIFT_EVALUATED: 1, semconv.DRIFT_STATUS: 2}
        return known.get(metric, 100.0 + self._scrapes)


@contextmanager
def serve() -> Iterator[str]:
    """Serves the exposition on 127.0.0.1; yields host:port."""
    registry = CollectorRegistry()
    registry.register(Exposition())
    server, thread = start_http_server(0, "127.0.0.1", registry=registry)
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
