"""Observing models without touching their code: `instrument()` and what it knows how to instrument."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

from .. import pipeline
from .catboost import CatBoostInstrumentor
from .lightgbm import LightGBMInstrumentor
from .mlflow import MLflowInstrumentor
from .onnxruntime import OnnxRuntimeInstrumentor
from .sklearn import SklearnInstrumentor
from .xgboost import XGBoostInstrumentor

if TYPE_CHECKING:
    from opentelemetry.instrumentation.instrumentor import BaseInstrumentor  # type: ignore[attr-defined]
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import TracerProvider

__all__ = ["instrument", "uninstrument"]

_INSTRUMENTORS: dict[str, type[BaseInstrumentor]] = {
    "sklearn": SklearnInstrumentor,
    "xgboost": XGBoostInstrumentor,
    "lightgbm": LightGBMInstrumentor,
    "catboost": CatBoostInstrumentor,
    "onnxruntime": OnnxRuntimeInstrumentor,
    "mlflow": MLflowInstrumentor,
}
"""By the module whose presence says that the library is installed."""


def instrument(
    *, meter_provider: MeterProvider | None = None, tracer_provider: TracerProvider | None = None
) -> None:
    """Record the predictions of every supported library, also of one that is imported later.

    Imports none of them. Calling it again only changes the providers.

    meter_provider, tracer_provider: the global ones by default, whenever these are set.
    """
    pipeline.use(meter_provider=meter_provider, tracer_provider=tracer_provider)
    for module, kind in _INSTRUMENTORS.items():
        instrumentor = kind()
        if not instrumentor.is_instrumented_by_opentelemetry:
            instrumentor.instrument(
                meter_provider=meter_provider, tracer_provider=tracer_provider, skip_dep_check=_absent(module)
            )


def _absent(module: str) -> bool:
    """Whether a library is not there, which is no conflict: it may never be imported."""
    try:
        return find_spec(module) is None
    except ValueError:  # something else stands in its place, as in a test of the application's
        return True


def uninstrument() -> None:
    """Undo `instrument()`: the libraries have the very objects again that they had before."""
    for kind in _INSTRUMENTORS.values():
        instrumentor = kind()
        if instrumentor.is_instrumented_by_opentelemetry:
            instrumentor.uninstrument()
