"""What a running program records: its providers, libraries, models and series."""

from __future__ import annotations

import os
import re
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from opentelemetry import _logs, metrics, trace

from ... import pipeline, registry, semconv
from ...events import has_logs
from ...instrument import _INSTRUMENTORS
from ...model import Model
from ...producer import Overview
from .environment import Library, libraries
from .series import Series, most

_AUTO = re.compile(r"auto-[0-9a-f]{8}")


@dataclass(frozen=True, slots=True)
class State:
    """What becomes of the calls of a library in this program."""

    name: str
    version: str | None
    supported: bool
    imported: bool
    instrumented: bool


@dataclass(frozen=True, slots=True)
class Seen:
    """A model that the program has."""

    name: str
    version: str
    variant: str | None
    operations: list[str]
    calls: int
    rows: int
    registered: bool
    """False when nobody gave it a name."""
    type: str | None
    baseline: str | None
    """Model, version and id of its baseline."""
    series: Series
    now: int
    """Series over OTLP so far, without the baseline's."""


@dataclass(slots=True)
class Inside:
    """A program, seen from inside."""

    calls: int = 0
    providers: dict[str, str | None] = field(default_factory=dict)
    """By signal; None where nobody has set one."""
    readers: list[tuple[str, bool]] = field(default_factory=list)
    """Class, and whether it is one of Prometheus."""
    libraries: list[State] = field(default_factory=list)
    models: list[Seen] = field(default_factory=list)
    samples: bool = False
    """Whether a sampler has decided on rows."""
    workers: str | None = None
    """What runs the program in other processes: gunicorn, or "it" when it has started some."""


def calls() -> int:
    """Predictions so far, those that raised included."""
    made = pipeline._producer
    return 0 if made is None else _count(made.overview().series)


def _count(series: Sequence[Any]) -> int:
    return sum(int(one.sketch.counts.sum()) for one in series if one.metric is semconv.INFERENCE_DURATION)


def flush(seconds: float) -> bool:
    """Export what is there, for at most so long; whether that was time enough."""
    if pipeline._producer is None:
        return True
    worker = threading.Thread(target=pipeline.force_flush, args=(int(seconds * 1000),), daemon=True)
    worker.start()
    worker.join(seconds)
    return not worker.is_alive()


def look() -> tuple[Inside, list[Model]]:
    """Everything there is to see now, and the models themselves."""
    seen = Inside(providers=_providers(), libraries=[_state(one) for one in libraries()])
    made = pipeline._producer
    told = Overview([], [], []) if made is None else made.overview()
    seen.readers, seen.calls = told.readers, _count(told.series)
    seen.samples = any(one.metric is semconv.SAMPLING_DECISIONS for one in told.series)
    seen.workers = "gunicorn" if "gunicorn.arbiter" in sys.modules else "it" if _has_children() else None
    operations: dict[int, tuple[Model, list[str]]] = {}
    for model, operation in told.models:
        operations.setdefault(id(model), (model, []))[1].append(operation)
    names = {(model.name, model.version) for model, _ in operations.values()}
    for model in registry.models():
        if (model.name, model.version) not in names:
            operations[id(model)] = model, []
    seen.models = [_seen(model, done, told.series) for model, done in operations.values()]
    return seen, [model for model, _ in operations.values()]


def _has_children() -> bool:
    """Whether processes of this one run or wait for their end; that they ended is left to the program to learn."""
    if not hasattr(os, "waitid"):  # Windows, and macOS before Python 3.13
        return False
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def _providers() -> dict[str, str | None]:
    meters = pipeline._meter_provider or metrics.get_meter_provider()
    tracers = pipeline.tracer_provider() or trace.get_tracer_provider()
    loggers = pipeline.logger_provider() or _logs.get_logger_provider()
    return {
        "metrics": None if pipeline._is_proxy(meters) else _class(meters),
        "traces": None if isinstance(tracers, trace.ProxyTracerProvider) else _class(tracers),
        "logs": _class(loggers) if has_logs(loggers) else None,
    }


def _class(value: object) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}"


def _state(library: Library) -> State:
    instrumentor: Any = _INSTRUMENTORS[library.module]()
    return State(
        library.name, library.version, library.supported, library.module in sys.modules,
        bool(instrumentor.is_instrumented_by_opentelemetry),
    )  # fmt: skip


def _seen(model: Model, operations: list[str], series: Sequence[Any]) -> Seen:
    own = model.attributes().items()
    mine = [one for one in series if own <= one.attributes.items()]
    rows = sum(one.sketch.value for one in mine if one.metric is semconv.INFERENCE_ROWS)
    baseline = model.baseline
    return Seen(
        model.name, model.version, model.variant, operations, _count(mine), rows,
        registered=_AUTO.fullmatch(model.version) is None, type=model.type,
        baseline=None if baseline is None else f"{baseline.model} {baseline.version} ({baseline.id})",
        series=most(model, max(len(operations), 1)), now=len(mine),
    )  # fmt: skip
