"""What an object that answers tells about itself: as scikit-learn's estimators do, or in its library's own way.

Nothing here imports a library: its classes are known by their names, so that a model can be registered before, and
without, its library being instrumented.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np

from .model import Model, Task


class Question(NamedTuple):
    """What one call asks of a model."""

    operation: str
    """As `ml.operation.name` has it."""
    reading: str | None
    """The operation as whose output this one's is read: predict_proba, decision_function, …; None: it says nothing."""
    pick: Callable[[Any], Any] | None = None
    """Makes of the output what is read."""


class Library:
    """How the objects of a library are asked who they are, and what a call asks of them.

    As it stands it asks as scikit-learn's estimators are asked. A library of another way overrides what differs and
    is made known with `teach`.
    """

    system: str | None = None
    """`ml.system.name`; None: the package of the class."""
    asked_once = False
    """Whether there is but one operation, so that no second one can be asked of the same rows."""

    def name(self, obj: Any) -> str | None:
        """What the model is called when nobody registered it; None: as its class."""
        return None

    def version(self, obj: Any) -> str | None:
        """Which version it says it is when nobody registered it; None: one is made of its `content`."""
        return None

    def inner(self, obj: Any) -> object | None:
        """The model that this one hands its calls on to, and which says what it is."""
        return None

    def task(self, obj: Any) -> Task | None:
        """What the model does, None when it does not tell."""
        return _task(obj)

    def classes(self, obj: Any) -> tuple[object, ...] | None:
        """Labels in the order of the columns of predict_proba."""
        classes: Any = learned(obj, "classes_")
        if getattr(classes, "ndim", None) != 1:  # a list of arrays, one per output, has no columns to name
            return None
        return tuple(classes.tolist())

    def feature_names(self, obj: Any) -> tuple[str, ...] | None:
        """Names of the input's columns in order, None when the model was trained without."""
        names: Any = learned(obj, "feature_names_in_")
        return tuple(map(str, names)) if isinstance(names, np.ndarray) else None

    def spelled(self, name: str) -> str:
        """What the library makes of the name of a column."""
        return name

    def content(self, obj: Any) -> Iterator[str]:
        """What copies of the object share and other models do not, in texts that are equal in every process."""
        get_params = getattr(obj, "get_params", None)
        if callable(get_params):
            for key, value in sorted(get_params().items()):
                yield f"{key}={text(value)}"
        for attribute in ("feature_names_in_", "classes_"):
            yield text(learned(obj, attribute))

    def answers(self, obj: Any) -> str:
        """The operation as whose output that of a plain `predict` is read; asked once per object."""
        return "predict"

    def asked(
        self, operation: str, answers: str, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Question | None:
        """What a call of the method `operation` asks, `args` with the object itself; None: it is no prediction."""
        return Question(operation, operation)

    def rows(self, data: Any, model: Model) -> Any:
        """What is given to the model as something that is read as rows."""
        return data


SKLEARN = Library()
_taught: dict[str, Library] = {}
_of_class: WeakKeyDictionary[type, Library] = WeakKeyDictionary()
"""What was looked up once."""


def teach(library: Library, *classes: str) -> Library:
    """Make `library` known for objects of these classes, `module.Class` each, and of what derives from them."""
    _taught.update(dict.fromkeys(classes, library))
    _of_class.clear()
    return library


def library_of(obj: object) -> Library:
    """What knows how to ask `obj`."""
    kind = type(obj)
    found = _of_class.get(kind)
    if found is None:
        names = (f"{base.__module__}.{base.__qualname__}" for base in kind.__mro__)
        found = _of_class[kind] = next((_taught[name] for name in names if name in _taught), SKLEARN)
    return found


def learned(obj: object, attribute: str) -> object | None:
    """A fitted attribute, or None: on an unfitted estimator a property may raise anything."""
    try:
        return getattr(obj, attribute, None)
    except Exception:
        return None


def _task(obj: object) -> Task | None:
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


# --- texts of parameters ----------------------------------------------------------------------------------


def text(value: object) -> str:
    """A text of `value` that is the same in every process: no addresses, no order of sets."""
    if value is None or isinstance(value, (str, bytes, bool, int, float, complex, np.generic)):
        return repr(value.item() if isinstance(value, np.generic) else value)
    if isinstance(value, np.ndarray):
        return _text_of_array(value)
    if isinstance(value, dict):
        return "{" + ",".join(f"{text(key)}:{text(item)}" for key, item in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(map(text, value)) + "]"
    if isinstance(value, (set, frozenset)):
        return "{" + ",".join(sorted(map(text, value))) + "}"
    return qualified(value if callable(value) and hasattr(value, "__name__") else type(value))


def _text_of_array(value: np.ndarray[tuple[int, ...], np.dtype[np.generic]]) -> str:
    if value.dtype.hasobject:
        return text(value.tolist())
    content = hashlib.sha256(value.tobytes()).hexdigest()
    return f"array{value.shape}{value.dtype.str}{content}"


def qualified(named: object) -> str:
    """Module and name of a class or function."""
    name = getattr(named, "__qualname__", None) or getattr(
        named, "__name__", ""
    )  # ufuncs have the latter only
    return f"{getattr(named, '__module__', '')}.{name}"
