"""Switching the recording of a library on and off: hooks after the import of its modules, and what these patched.

An instrumentor is a table of hooks, one for each module whose classes are patched.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, distribution
from types import ModuleType
from typing import Any, ClassVar

import wrapt
from opentelemetry.instrumentation.instrumentor import BaseInstrumentor  # type: ignore[attr-defined]

from .. import _guard, pipeline
from ..patch import Patches
from . import estimators

Hook = Callable[[ModuleType, Patches], None]


class LibraryInstrumentor(BaseInstrumentor):  # type: ignore[misc]  # has no types
    """Switches the recording of a library on and off; the library itself need not be imported yet."""

    distributions: ClassVar[tuple[str, ...]]
    """Names under which the library is installed, the usual one first."""
    versions: ClassVar[str]
    """Those that this was built for, as a requirement has them: ">= 2.1"."""
    hooks: ClassVar[Mapping[str, Hook]]
    """By module, what to do when it has been imported."""
    _patches: Patches | None = None

    def instrumentation_dependencies(self) -> Collection[str]:
        """The versions of the library that this was built for."""
        return (f"{_installed(self.distributions)} {self.versions}",)

    def _instrument(self, **kwargs: Any) -> None:
        pipeline.use(
            meter_provider=kwargs.get("meter_provider"), tracer_provider=kwargs.get("tracer_provider")
        )
        self._patches = Patches()
        for module, hook in self.hooks.items():
            wrapt.register_post_import_hook(_guarded(hook, self._patches), module)

    def _uninstrument(self, **_: Any) -> None:
        if self._patches is not None:
            self._patches.restore()
        self._patches = None
        estimators.reset()


def _installed(distributions: Sequence[str]) -> str:
    return next(filter(_is_installed, distributions), next(iter(distributions)))


def _is_installed(name: str) -> bool:
    try:
        distribution(name)
    except PackageNotFoundError:
        return False
    return True


def _guarded(hook: Hook, patches: Patches) -> Callable[[ModuleType], None]:
    """A hook cannot be taken back: one that belongs to patches already restored does nothing."""

    def run(module: ModuleType) -> None:
        if patches.active:
            with _guard.guard(f"instrument {module.__name__}"):
                hook(module, patches)

    return run
