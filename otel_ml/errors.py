"""Every error otel-ml raises on purpose, as one tree.

OtelMLError
├── ConfigurationError     an argument, a setting or a configuration file is wrong
├── BaselineError          a baseline file cannot be read or is not valid
│   └── BoundsMismatch     two histograms do not share their bounds
└── MissingDependency      an optional part is not installed (also an ImportError)
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType


class OtelMLError(Exception):
    """Base of every error that otel-ml raises on purpose."""


class ConfigurationError(OtelMLError, ValueError):
    """An argument, a setting or a configuration file is wrong; the message names it and the way out."""


class BaselineError(OtelMLError, ValueError):
    """A baseline cannot be made, read or merged; the message names the file, the key and the way out."""


class BoundsMismatch(BaselineError):
    """Two histograms cannot be added up because their bounds differ."""


class MissingDependency(OtelMLError, ImportError):
    """An optional part is not installed; the message holds the exact command that installs it."""


def require(module: str, *, extra: str) -> ModuleType:
    """Import an optional `module`, or raise `MissingDependency` with the pip command of its `extra`."""
    try:
        return import_module(module)
    except ImportError as error:
        raise MissingDependency(
            f"{module} is needed here and is not installed; install it with: pip install 'otel-ml[{extra}]'"
        ) from error
