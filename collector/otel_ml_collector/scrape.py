"""A page that Prometheus scrapes: drift gauges and the collector's own metrics.

Names are those that OpenTelemetry's translation to Prometheus gives: dots become underscores, seconds are
said in the name, braced units are not. So a query finds the gauges whichever way they came.
https://opentelemetry.io/docs/specs/otel/compatibility/prometheus_and_openmetrics/
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.core import Metric as Family
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from otel_ml.semconv import Metric

from .emit import Sample, by_metric
from .server import HttpServer, application

Page = Sequence[Sample]
_UNITS = {"s": "_seconds", "By": "_bytes"}


def families(page: Page) -> Iterator[Family]:
    """The metric families of a page, each with one set of labels; a label without a value is empty."""
    for metric, samples in by_metric(page).items():
        rows = [(_labels(sample.attributes), sample.value) for sample in samples]
        names = sorted({name for labels, _ in rows for name in labels})
        family = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
        filled = family(prometheus_name(metric), metric.description, labels=names)
        for labels, value in rows:
            filled.add_metric([labels.get(name, "") for name in names], value)
        yield filled


def prometheus_name(metric: Metric) -> str:
    """The name Prometheus knows a metric by; counters get their `_total` when they are written."""
    name, unit = _plain(metric.name), _UNITS.get(metric.unit, "")
    return name if name.endswith(unit) else name + unit


def _labels(attributes: Mapping[str, str]) -> dict[str, str]:
    return {_plain(name): value for name, value in attributes.items()}


def _plain(name: str) -> str:
    return re.sub(r"[^a-zA-Z0-9_]", "_", name)


class _Pages(Collector):
    def __init__(self, page: Callable[[], Page]) -> None:
        self._page = page

    def collect(self) -> Iterable[Family]:
        return families(self._page())

    def describe(self) -> Iterable[Family]:
        return ()


class ScrapeServer:
    """Serves what `page` returns at `/metrics`.

    A page is written in a thread, beside the event loop: `page` must only hand out finished values.
    """

    def __init__(self, endpoint: str, page: Callable[[], Page]) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_Pages(page))
        routes = [Route("/metrics", self._answer, methods=["GET"])]
        self._server = HttpServer(application(routes), endpoint)

    @property
    def port(self) -> int | None:
        """The bound port once started."""
        return self._server.port

    async def start(self) -> None:
        """Start to answer; `ConfigurationError` when the endpoint is taken."""
        await self._server.start()

    async def stop(self, grace: float) -> None:
        """Stop to answer."""
        await self._server.stop(grace)

    def _answer(self, request: Request) -> Response:
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        return Response(encode(self._registry), headers={"Content-Type": content_type})
