"""What is installed, and what the variables of otel-ml say."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from difflib import get_close_matches
from importlib.metadata import PackageNotFoundError, requires, version

from opentelemetry.instrumentation.dependencies import get_dependency_conflicts
from packaging.requirements import Requirement

from ... import config, readers
from ...errors import ConfigurationError
from ...instrument import _INSTRUMENTORS
from .finding import Finding

PACKAGES = (
    "otel-ml", "opentelemetry-api", "opentelemetry-sdk", "opentelemetry-exporter-otlp-proto-grpc",
    "opentelemetry-exporter-otlp-proto-http", "opentelemetry-exporter-prometheus", "opentelemetry-instrumentation",
    "opentelemetry-distro", "numpy", "narwhals", "wrapt",
)  # fmt: skip
"""Whose versions are told where they are installed."""
PREFIX = "OTEL_PYTHON_ML_"


@dataclass(frozen=True, slots=True)
class Library:
    """A library that otel-ml can instrument."""

    name: str
    """As pip knows it."""
    module: str
    requires: str
    """The supported versions, `>=1.5`."""
    version: str | None
    """None when it is not installed."""
    supported: bool

    @property
    def wish(self) -> str:
        """What pip would install."""
        return f"{self.name}{self.requires}"


def versions() -> dict[str, str]:
    """Versions of Python, otel-ml and what it stands on."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        made = installed(package)
        if made is not None:
            found[package] = made
    return found


def installed(package: str) -> str | None:
    """Version of a package; None when it is not there."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def libraries() -> list[Library]:
    """Every library that an instrumentor of ours says it was built for, the installed ones first."""
    found: dict[str, Library] = {}
    for module, kind in _INSTRUMENTORS.items():
        for line in kind().instrumentation_dependencies():
            wanted = Requirement(line)
            conflict = get_dependency_conflicts([line])
            found[wanted.name] = Library(
                wanted.name, module, str(wanted.specifier), installed(wanted.name), conflict is None
            )
    return sorted(found.values(), key=lambda one: (one.version is None, one.name))


def check() -> Iterator[Finding]:
    """What is wrong with versions and variables, whatever program runs."""
    for line in requires("otel-ml") or ():
        wanted = Requirement(line)
        found = None if wanted.marker else installed(wanted.name)
        if found is not None and not wanted.specifier.contains(found, prereleases=True):
            yield Finding(
                f"{wanted.name} {found} is too old or too new",
                f"otel-ml needs {wanted.name}{wanted.specifier}",
                f"pip install '{wanted.name}{wanted.specifier}'",
            )
    if readers.disabled():
        yield Finding(
            "OTEL_SDK_DISABLED=true", "it switches OpenTelemetry off: models predict, nothing is recorded", "unset it"
        )  # fmt: skip
    yield from _variables(os.environ)


def unsupported(library: Library) -> Finding:
    """An installed library of a version that is not instrumented."""
    return Finding(
        f"{library.name} {library.version} is not instrumented",
        f"otel-ml was built for {library.wish}; on other versions it keeps its hands off",
        f"pip install '{library.wish}', or decorate your function with otel_ml.observe",
    )


def _variables(environment: Mapping[str, str]) -> Iterator[Finding]:
    known = {item.metadata["environment"] for item in fields(config.Settings)}
    for name in sorted(set(environment) - known):
        if name.startswith(PREFIX):
            near = get_close_matches(name, known, n=1)
            yield Finding(
                f"{name} is no setting of otel-ml",
                "nothing reads it",
                f"did you mean {near[0]}?" if near else f"the settings are {', '.join(sorted(known))}",
            )
    for name in sorted(known & set(environment)):
        why = _wrong({name: environment[name]})
        if why is not None:
            yield Finding(
                why, "a wrong value stops nothing: all settings have their defaults", f"correct {name}"
            )


def _wrong(environment: dict[str, str]) -> str | None:
    try:
        config.read(environment)
    except ConfigurationError as error:
        return str(error)
    return None
