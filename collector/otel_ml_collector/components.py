"""Every type of component that a configuration can have."""

from __future__ import annotations

from .fields import Section
from .retraining import Webhook
from .settings import (
    BasicAuth,
    BearerTokenAuth,
    Debug,
    FileStorage,
    HealthCheck,
    MemoryLimiter,
    MlDrift,
    Otlp,
    OtlpHttp,
    OtlpReceiver,
    Prometheus,
)

Exporter = Otlp | OtlpHttp | Prometheus | Debug | Webhook

TYPES: dict[str, dict[str, type[Section]]] = {
    "receivers": {"otlp": OtlpReceiver},
    "processors": {"ml_drift": MlDrift, "memory_limiter": MemoryLimiter},
    "exporters": {
        "otlp": Otlp,
        "otlp_grpc": Otlp,  # the Collector's names since 0.161, which takes the others as well
        "otlp_http": OtlpHttp,
        "otlphttp": OtlpHttp,
        "prometheus": Prometheus,
        "debug": Debug,
        "webhook": Webhook,
    },
    "extensions": {
        "health_check": HealthCheck,
        "bearertokenauth": BearerTokenAuth,
        "basicauth": BasicAuth,
        "file_storage": FileStorage,
    },
}
"""By section and name."""
