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
from dataclasses import dataclass, replace
from os import PathLike

from . import _guard, config, semconv
from .baseline import Baseline
from .errors import BaselineError, ConfigurationError
from .events import Redact
from .library import library_of, qualified
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

    Registering an object again replaces what was said before. Copies and unpickled models of a registered one have
    its identity, too, unless two registered ones are alike.

    obj: the fitted model.
    name, version: what its telemetry is named after, and drift kept apart by.
    baseline: a `Baseline` or the path of its file; one that cannot be read is logged once and left out.
    spans: "all" makes a current span for every call; "sampled" one after the call, of the calls of which the
        sampler keeps a row, or of all when there is no sampler; "off" none.
    variant, role, sampler, capture_features, redact, segment: as of `observe`.

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
    recording.check_captured(replace(model, feature_names=library_of(obj).feature_names(obj)))
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


def models() -> list[Model]:
    """Every model that was registered and is still there."""
    with _lock:
        return [registration.model for reference, registration in _by_id.values() if reference() is not None]


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
    """SHA-256 in hex of the class and of what else its library gives: equal for copies, in every process."""
    digest = hashlib.sha256()
    for part in _parts(obj):
        digest.update(part.encode("utf-8", "surrogatepass"))
        digest.update(b"\0")
    return digest.hexdigest()


def task_of(obj: object) -> Task | None:
    """What a model does; None when it does not tell."""
    return library_of(obj).task(obj)


def _parts(obj: object) -> Iterator[str]:
    yield qualified(type(obj))
    yield from library_of(obj).content(obj)


def _renew_lock() -> None:
    global _lock
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)  # a thread that held it does not exist in the child
