"""OpenTelemetry instrumentation for machine-learning inference.

import otel_ml

otel_ml.instrument()                    # every model of the libraries it knows, nothing else to do

@otel_ml.observe(model="churn", version="3", baseline="churn.baseline.json")
def predict(X): ...                     # or name one function yourself
"""

from . import sampling
from ._version import __version__
from .baseline import Baseline
from .errors import BaselineError, BoundsMismatch, ConfigurationError, MissingDependency, OtelMLError
from .feedback import feedback
from .instrument import instrument, uninstrument
from .observer import current_prediction_id, suppress
from .pipeline import configure, force_flush
from .registry import register
from .segment import Segment
from .variants import assign_variant
from .wrap import observe

__all__ = [
    "Baseline",
    "BaselineError",
    "BoundsMismatch",
    "ConfigurationError",
    "MissingDependency",
    "OtelMLError",
    "Segment",
    "__version__",
    "assign_variant",
    "configure",
    "current_prediction_id",
    "feedback",
    "force_flush",
    "instrument",
    "observe",
    "register",
    "sampling",
    "suppress",
    "uninstrument",
]
