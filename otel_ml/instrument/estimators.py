"""Who a scikit-learn estimator is: worked out once per object, dropped when it is fitted again.

Copies of an estimator that nobody registered share one model: its version is made of what they share.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections import deque
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from .. import _guard, config, registry
from ..baseline import Baseline
from ..library import SKLEARN, Library, learned, library_of
from ..model import Model
from ..observer import Observer
from ..recording import Recording
from ..registry import Registration, fingerprint, load_baseline, task_of
from . import repeats
from .answers import LibraryCall
from .calls import EstimatorCall

LIBRARIES = ("sklearn", "xgboost", "lightgbm", "catboost", "imblearn")
"""Top-level packages that stand in `ml.system.name`; others count as what they derive from."""


@dataclass(eq=False)
class Identity:
    """A model with its observers, one per operation; shared by all copies."""

    model: Model
    registered: bool
    recording: Recording
    library: Library
    answers: str
    """As whose output its library reads that of a plain `predict`."""
    observers: dict[str, Observer | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Known:
    """What was worked out about one object."""

    reference: weakref.ref[object]
    generation: int
    identity: Identity


_DEFAULT = Recording(spans="sampled")
_known: dict[int, _Known] = {}
_identities: weakref.WeakValueDictionary[tuple[str, Registration | None], Identity] = (
    weakref.WeakValueDictionary()
)
_recent: deque[Identity] = deque(maxlen=64)  # a service that unpickles its model for every call finds it here
_lock = threading.RLock()  # re-entrant: the callback of a weak reference can run inside any allocation


def describe(estimator: Any) -> Model:
    """The model of an estimator: as registered, else named after its class with an `auto-` version.

    Class and name are those of the last step of a Pipeline. The version is 8 hex digits of class, parameters,
    feature names and classes: equal in every process.
    """
    return _identity(estimator).model


def call(
    estimator: Any, operation: str, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> EstimatorCall | None:
    """A call of this operation of `estimator`, its arguments with it; None when it is not a prediction."""
    known = _known_of(estimator)
    identity = known.identity
    question = None
    if identity.library is not SKLEARN:
        question = identity.library.asked(operation, identity.answers, args, kwargs)
        if question is None:
            return None
        operation = question.operation
    try:
        found = identity.observers[operation]
    except KeyError:
        found = _add_observer(identity, operation)
    if found is None:
        return None
    if question is None:
        return EstimatorCall(found, estimator, known)
    return LibraryCall(found, estimator, known, identity.library, question)


def reading(obj: Any, operation: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str | None:
    """The operation as whose output that of this call is read; None when it says nothing."""
    identity = _identity(obj)
    question = identity.library.asked(operation, identity.answers, args, kwargs)
    return None if question is None else question.reading


def speaks_in(estimator: Any, outer: Model) -> bool:
    """Whether a user gave this object, or one that it is a copy of, an identity that is not the one of `outer`.

    With that of `outer` every row would be counted twice.
    """
    if not registry.any_registered():
        return False
    inner = _identity(estimator)
    return inner.registered and inner.model.attributes() != outer.attributes()


def forget(estimator: Any) -> None:
    """Drop what was worked out about `estimator`: it has been fitted."""
    _known.pop(id(estimator), None)
    registry.fitted(estimator)


def reset() -> None:
    """Forget every estimator and every baseline directory."""
    with _lock:
        _known.clear()
        _identities.clear()
        _recent.clear()
    _baselines.cache_clear()
    repeats.reset()


# --- known objects ----------------------------------------------------------------------------------------


def _identity(estimator: Any) -> Identity:
    return _known_of(estimator).identity


def _known_of(estimator: Any) -> _Known:
    known = _known.get(id(estimator))
    if known is not None and known.reference() is estimator and known.generation == registry.generation:
        return known
    return _work_out(estimator)


def _work_out(estimator: Any) -> _Known:
    generation = registry.generation
    registration, mark = registry.find(estimator), fingerprint(estimator)
    with _lock:
        identity = _identities.get((mark, registration))
        if identity is None:
            identity = _make(estimator, registration, mark)
            _identities[mark, registration] = identity
            _recent.append(identity)
        known = _known[id(estimator)] = _Known(_reference(estimator), generation, identity)
    return known


def _reference(estimator: object) -> weakref.ref[object]:
    number = id(estimator)

    def drop(reference: weakref.ref[object]) -> None:
        known = _known.get(number)
        if known is not None and known.reference is reference:
            del _known[number]

    return weakref.ref(estimator, drop)


def _make(estimator: Any, registration: Registration | None, mark: str) -> Identity:
    library = library_of(estimator)
    answers = library.answers(estimator)
    if registration is not None:
        model = _complete(registration.model, estimator)
        return Identity(model, True, registration.recording, library, answers)
    name = library.name(estimator) or type(_final(estimator)).__name__
    version = library.version(estimator) or f"auto-{mark[:8]}"
    model = _complete(Model(name=name, version=version), estimator)
    baseline = _matching_baseline(model, library)
    model = replace(model, baseline=baseline, feature_names=_spelled(model.feature_names, baseline, library))
    return Identity(model, False, _DEFAULT, library, answers)


def _add_observer(identity: Identity, operation: str) -> Observer | None:
    # of score_samples only an outlier detector's is a prediction: the others give densities of training data
    absent = operation == "score_samples" and identity.model.task != "outlier"
    with _lock:
        if operation not in identity.observers:
            made = (
                None
                if absent
                else Observer(identity.model, operation=operation, recording=identity.recording)
            )
            identity.observers[operation] = made
        return identity.observers[operation]


# --- what an estimator tells ------------------------------------------------------------------------------


def _complete(model: Model, estimator: Any) -> Model:
    final, library = _final(estimator), library_of(estimator)
    return replace(
        model,
        type=type(final).__name__,
        system=library_of(final).system or _system(type(final)),
        task=task_of(estimator),
        classes=library.classes(estimator),
        feature_names=_spelled(library.feature_names(estimator), model.baseline, library),
    )


def _spelled(
    names: tuple[str, ...] | None, baseline: Baseline | None, library: Library
) -> tuple[str, ...] | None:
    """Names as the baseline has them, where the library keeps them in a spelling of its own."""
    if names is None or baseline is None:
        return names
    known = {library.spelled(name): name for name in baseline.columns}
    return tuple(known.get(name, name) for name in names)


def _final(estimator: Any) -> Any:
    """The last step of a Pipeline, of Pipelines in Pipelines too, also where another object holds it."""
    inner = library_of(estimator).inner(estimator)
    if inner is not None:
        return _final(inner)
    steps = learned(estimator, "steps")
    if isinstance(steps, list) and steps and hasattr(steps[-1][-1], "get_params"):
        return _final(steps[-1][-1])
    return estimator


def _system(kind: type) -> str:
    packages = (base.__module__.partition(".")[0] for base in kind.__mro__)
    return next((package for package in packages if package in LIBRARIES), "sklearn")


# --- baselines nobody assigned ----------------------------------------------------------------------------


def _matching_baseline(model: Model, library: Library) -> Baseline | None:
    """The one baseline in OTEL_PYTHON_ML_BASELINES that has the model's columns or its name."""
    directory = config.settings().baselines
    if not directory:
        return None
    known = _baselines(directory)
    columns = [b for b in known if tuple(map(library.spelled, b.columns)) == model.feature_names]
    named = [b for b in known if b.model == model.name]
    both = [b for b in columns if b.model == model.name]
    for candidates in (both, columns, named):
        if len(candidates) == 1:
            return candidates[0]
        if candidates:
            _say_ambiguous(model, directory, len(candidates))
            break
    return None


def _say_ambiguous(model: Model, directory: str, number: int) -> None:
    _guard.say_once(
        f"baselines:{model.name}:{model.version}",
        "%d baselines in %s fit %s and none is used; name one with "
        "otel_ml.register(model, name=…, version=…, baseline=…)", number, directory, model.name,
    )  # fmt: skip


@lru_cache(maxsize=1)
def _baselines(directory: str) -> tuple[Baseline, ...]:
    files = sorted(Path(directory).glob("*.json"))
    if not files:
        _guard.say_once(
            f"baselines:{directory}", "OTEL_PYTHON_ML_BASELINES=%s holds no *.json file", directory
        )
    return tuple(baseline for baseline in map(load_baseline, files) if baseline is not None)


def _renew_lock() -> None:
    global _lock
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)  # a thread that held it does not exist in the child
