"""Which processes are one of several of a service, and what tells each of them apart.

Counts of two processes under one `service.instance.id` overwrite each other at a backend. OpenTelemetry says that each
worker of an application server should have its own:
https://opentelemetry.io/docs/specs/semconv/registry/attributes/service/
"""

from __future__ import annotations

import sys
from functools import lru_cache

from opentelemetry.sdk.resources import OTELResourceDetector, Resource

from . import semconv

_PREFORK = "gunicorn.arbiter"
"""Is there in every worker of gunicorn, also where nothing of ours was before the fork."""


def instance_of(resource: Resource) -> str | None:
    """The `service.instance.id` of `resource`."""
    found = resource.attributes.get(semconv.SERVICE_INSTANCE_ID)
    return None if found is None else str(found)


def inherited() -> str | None:
    """The `service.instance.id` that stands in OTEL_RESOURCE_ATTRIBUTES, when this process shares its environment with
    others of the service: then it names the container that they are in."""
    return _in_environment() if _is_one_of_several() else None


@lru_cache(maxsize=1)
def _in_environment() -> str | None:
    return instance_of(OTELResourceDetector().detect())


def _is_one_of_several() -> bool:
    """Whether an application server or `multiprocessing` has made this process (uvicorn and joblib use the latter)."""
    multiprocessing = sys.modules.get("multiprocessing.process")
    begun = multiprocessing is not None and multiprocessing.parent_process() is not None
    return begun or _PREFORK in sys.modules
