"""Which model an object is: the identities that users gave, and the fingerprint that finds copies.

Nothing is set on the object. It is known by `id()` for as long as it lives, and its copies (deepcopy, pickle)
by a fingerprint of what a copy shares with it: class, parameters, feature names, classes. Two identities with
one fingerprint cannot be told apart, so then a copy has none.
"""

from __future__ import annotations

import hashlib
import logging
import os
import sys
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from os import PathLike

import numpy as np

from . import _guard, config, semconv
from .baseline import Baseline
from .errors import BaselineError, ConfigurationError
from .events import Redact
from .model import Model, Task
from .recording import Recording, SpanMode
from .sampling import SamplerLike
from .segment import Segment, resolve


@dataclass(frozen=True, slots=True)
class Registration:
    """What a user said about an object."""

    model: Model
    recording: Recording

    def same_identity(self, other: Registration) -> bool:
        """Whether both would emit under the same name, version and variant."""
        return self.model.attributes() == other.model.attributes()


generation = 0
"""Changes whenever what `find` answers may have changed, so that callers can cache its answers."""

_lock = threading.RLock()  # re-entrant: the callback of a weak reference can run inside any allocation
_by_id: dict[int, tuple[Callable[[], object | None], Registration]] = {}
_by_fingerprint: dict[str, Registration | None] = {}  # None: shared by several identities


def register(
    obj: object,
    *,
    name: str,
    version: str,
    baseline: Baseline | str | PathLike[str] | None = None,
    variant: str | None = None,
    role: str = "live",
    spans: SpanMode = "sampled",
    sampler: SamplerLike | None = None,
    capture_features: Sequence[str] = (),
    redact: Redact | None = None,
    segment: Segment | str | None = None,
) -> None:
    """Give a model object its identity in everything that instrumentation emits for it.

    `baseline` is a `Baseline` or its file; one that cannot be read is said in one log line and left out.
    `spans`, `sampler`, `capture_features`, `redact` and `segment` are those of `observe`. Registering an object
    again replaces what was said before.

    Raises `ConfigurationError` on a class and on an argument that cannot be right.
    """
    if isinstance(obj, type):
        raise ConfigurationError(
            f"register takes a model object, not the class {obj.__name__}; pass the fitted model"
        )
    check_role(role)
    recording = Recording(spans, sampler, capture_features, redact)
    loaded = load_baseline(baseline)
    unread = baseline is not None and loaded is None
    model = Model(
        name=name, version=str(version), type=type(obj).__name__, baseline=loaded, task=task_of(obj), variant=variant,
        role=role, segment=resolve(segment, model=name, baseline=loaded, unread=unread),
    )  # fmt: skip
    recording.check(model)
    _file(obj, Registration(model, recording))


def lookup(obj: object) -> Model | None:
    """The model that `obj`, or the object it is a copy of, was registered as."""
    found = find(obj)
    return None if found is None else found.model


def find(obj: object) -> Registration | None:
    """As `lookup`, with everything else that was said."""
    if not _by_fingerprint:
        return None
    known = _by_id.get(id(obj))
    if known is not None and known[0]() is obj:
        return known[1]
    mark = fingerprint(obj)
    if mark not in _by_fingerprint:
        return None
    registration = _by_fingerprint[mark]
    if registration is None:
        _guard.say_once(
            f"registry:{mark}",
            "a copy of a registered %s cannot be told apart, because several registered models share its "
            "class, parameters, feature names and classes; it is unregistered until you register the copy",
            type(obj).__name__,
        )
    return registration


def any_registered() -> bool:
    """Whether `find` can find anything; cheap."""
    return bool(_by_fingerprint)


def fitted(obj: object) -> None:
    """Take note that `obj` was fitted, so that copies of what it is now are found."""
    known = _by_id.get(id(obj))
    if known is None or known[0]() is not obj:
        return
    if _by_fingerprint.get(fingerprint(obj)) is not known[1]:
        _file(obj, known[1])


def reset() -> None:
    """Forget every identity (tests)."""
    global generation
    with _lock:
        _by_id.clear()
        _by_fingerprint.clear()
        generation += 1


def check_role(role: str) -> None:
    """`ConfigurationError` unless `role` is among the values it can take."""
    if role not in semconv.ROLES:
        raise ConfigurationError(f"role={role!r} is not known; use one of {', '.join(semconv.ROLES)}")


def load_baseline(source: Baseline | str | PathLike[str] | None) -> Baseline | None:
    """The baseline given or read from its file; None, with one log line, when the file cannot be read.

    Raises `ConfigurationError` when `source` is neither.
    """
    if source is None or isinstance(source, Baseline):
        return source
    if not isinstance(source, (str, PathLike)):
        raise ConfigurationError(
            f"baseline must be a Baseline or the path of its file, not {type(source).__name__}"
        )
    try:
        return Baseline.load(source)
    except (BaselineError, OSError) as error:
        if config.settings().raise_errors:
            raise
        _guard.errors["baseline"] += 1
        _guard.say_once(
            f"baseline:{source}", "%s; the model is observed without a baseline", error, level=logging.ERROR
        )
        return None


def _file(obj: object, registration: Registration) -> None:
    global generation
    mark = fingerprint(obj)
    with _lock:
        _by_id[id(obj)] = (_reference(obj), registration)
        other = _by_fingerprint.get(mark, registration)
        shared = other is None or not other.same_identity(registration)
        _by_fingerprint[mark] = None if shared else registration
        generation += 1


def _reference(obj: object) -> Callable[[], object | None]:
    """A weak reference that takes its entry with it; an object without them is kept alive instead."""
    number = id(obj)

    def forget(reference: weakref.ref[object]) -> None:
        if sys.is_finalizing():  # a daemon thread that was stopped for good may hold the lock
            return
        with _lock:
            known = _by_id.get(number)
            if known is not None and known[0] is reference:
                del _by_id[number]

    try:
        return weakref.ref(obj, forget)
    except TypeError:
        return lambda: obj


# --- fingerprint ------------------------------------------------------------------------------------------


def fingerprint(obj: object) -> str:
    """SHA-256 in hex of class, parameters, feature names and classes: equal for copies, in every process."""
    digest = hashlib.sha256()
    for part in _parts(obj):
        digest.update(part.encode("utf-8", "surrogatepass"))
        digest.update(b"\0")
    return digest.hexdigest()


def learned(obj: object, attribute: str) -> object | None:
    """A fitted attribute, or None: on an unfitted estimator a property may raise anything."""
    try:
        return getattr(obj, attribute, None)
    except Exception:
        return None


def task_of(obj: object) -> Task | None:
    """What an estimator does, as scikit-learn tells; None when it does not, or `obj` is no estimator."""
    base = sys.modules.get("sklearn.base")  # an estimator cannot be without it
    tests: tuple[tuple[Task, str], ...] = (
        ("classification", "is_classifier"),
        ("regression", "is_regressor"),
        ("outlier", "is_outlier_detector"),
        ("clustering", "is_clusterer"),
    )
    if base is None or not isinstance(obj, base.BaseEstimator):
        return None
    try:
        return next((task for task, test in tests if getattr(base, test, _is_clusterer)(obj)), None)
    except Exception:  # the tags of a class of the user's can raise anything
        return None


def _is_clusterer(estimator: object) -> bool:
    """scikit-learn's test since 1.6."""
    return getattr(estimator, "_estimator_type", None) == "clusterer"


def _parts(obj: object) -> Iterator[str]:
    yield _qualified(type(obj))
    get_params = getattr(obj, "get_params", None)
    if callable(get_params):
        for key, value in sorted(get_params().items()):
            yield f"{key}={_text(value)}"
    for attribute in ("feature_names_in_", "classes_"):
        yield _text(learned(obj, attribute))


def _text(value: object) -> str:
    """A text of `value` that is the same in every process: no addresses, no order of sets."""
    if value is None or isinstance(value, (str, bytes, bool, int, float, complex, np.generic)):
        return repr(value.item() if isinstance(value, np.generic) else value)
    if isinstance(value, np.ndarray):
        return _text_of_array(value)
    if isinstance(value, dict):
        return "{" + ",".join(f"{_text(key)}:{_text(item)}" for key, item in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(map(_text, value)) + "]"
    if isinstance(value, (set, frozenset)):
        return "{" + ",".join(sorted(map(_text, value))) + "}"
    return _qualified(value if callable(value) and hasattr(value, "__name__") else type(value))


def _text_of_array(value: np.ndarray[tuple[int, ...], np.dtype[np.generic]]) -> str:
    if value.dtype.hasobject:
        return _text(value.tolist())
    content = hashlib.sha256(value.tobytes()).hexdigest()
    return f"array{value.shape}{value.dtype.str}{content}"


def _qualified(named: object) -> str:
    name = getattr(named, "__qualname__", None) or getattr(
        named, "__name__", ""
    )  # ufuncs have the latter only
    return f"{getattr(named, '__module__', '')}.{name}"


def _renew_lock() -> None:
    global _lock
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)  # a thread that held it does not exist in the child
