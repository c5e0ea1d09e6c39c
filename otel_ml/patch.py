"""Putting something around the methods of classes, and taking it away again, without breaking the classes.

A patched class still pickles (its methods as look-ups), still answers `hasattr` of conditional methods as
before, and still shows the signatures of its own functions. Instances are never touched.
"""

from __future__ import annotations

import copy
import functools
import inspect
import sys
import weakref
from collections.abc import Callable
from types import MethodType, ModuleType
from typing import Any

import wrapt

Around = Callable[[Callable[..., Any]], Callable[..., Any]]
"""Makes of a function what is called in its place; as a decorator does, without its cosmetics."""


_ABSENT = object()


class Method(wrapt.ObjectProxy):  # type: ignore[type-arg]  # takes arguments in its stubs only
    """A function in a class with `around` around it; in every other respect the function itself."""

    def __init__(
        self, patches: Patches, cls: type, name: str, function: Any, around: Around, original: object
    ):
        super().__init__(function)
        self._self_patches = patches
        self._self_class = cls
        self._self_name = name
        self._self_original = original
        self._self_call = around(function)  # one attribute for the call: a proxy is slow to ask

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._self_call(*args, **kwargs)

    def __get__(self, instance: object | None, owner: type | None = None) -> Any:
        return self if instance is None else MethodType(self, instance)

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        """A look-up, so that the reader gets what it has there and needs nothing of ours.

        A class that no look-up finds travels by value: then so does the bare function, which `copy.copy`
        returns as it is.
        """
        if _importable(self._self_class):
            return getattr, (self._self_class, self._self_name)
        return copy.copy, (self.__wrapped__,)

    def __reduce__(self) -> tuple[Any, ...]:
        return self.__reduce_ex__(2)

    def __copy__(self) -> Method:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Method:
        return self  # as functions do


class ConditionalMethod(Method):
    """The function of a conditional method, which a look-up in the class does not find.

    A function that no look-up finds is sent by value by cloudpickle, bare; so this one says that it is none.
    """

    __class__ = property(lambda _: ConditionalMethod)

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        if _travels_by_value(self._self_class):
            return copy.copy, (self.__wrapped__,)
        return super().__reduce_ex__(protocol)


class Patches:
    """What was put around methods and functions, to be taken away together. Classes are held weakly."""

    def __init__(self) -> None:
        self.active = True
        """False once restored: then what is still held, or was patched over, only calls through."""
        self._classes: weakref.WeakSet[type] = weakref.WeakSet()
        self._methods: weakref.WeakValueDictionary[int, Method] = weakref.WeakValueDictionary()
        self._attributes: list[tuple[type | ModuleType, str, object, object]] = []

    def add(self, cls: type, name: str, around: Around) -> None:
        """Put `around` around method `name` if `cls` itself defines it and it is not patched yet."""
        original = cls.__dict__.get(name)
        if original is None or _patched(original) is not None:
            return
        replacement: Any
        if _is_conditional(original):
            method: Method = ConditionalMethod(self, cls, name, original.fn, around, original)
            replacement = copy.copy(original)
            replacement.fn = method
        elif _is_method(original):
            replacement = method = Method(self, cls, name, original, around, original)
        else:
            return
        setattr(cls, name, replacement)
        self._classes.add(cls)
        self._methods[id(method)] = method

    def add_function(self, module: ModuleType, name: str, around: Around) -> None:
        """Put `around` around a function of `module`, if there is one of this name."""
        original = getattr(module, name, None)
        if original is None:
            return

        call = around(original)

        @functools.wraps(original)
        def replacement(*args: Any, **kwargs: Any) -> Any:
            return call(*args, **kwargs) if self.active else original(*args, **kwargs)

        self.set(module, name, replacement)

    def set(self, holder: type | ModuleType, name: str, value: object) -> None:
        """Set an attribute of a class or module that is never thrown away."""
        original = vars(holder).get(name, _ABSENT)
        setattr(holder, name, value)
        self._attributes.append((holder, name, original, vars(holder)[name]))

    def restore(self) -> None:
        """Put back the very objects that stood there, except where somebody has patched over ours."""
        self.active = False
        for method in list(self._methods.values()):
            method._self_call = method.__wrapped__
        for cls in list(self._classes):
            for name, value in list(cls.__dict__.items()):
                ours = _patched(value)
                if ours is not None and ours._self_patches is self:
                    setattr(cls, name, ours._self_original)
        for holder, name, original, value in reversed(self._attributes):
            if vars(holder).get(name) is value:
                delattr(holder, name) if original is _ABSENT else setattr(holder, name, original)
        self._classes.clear()
        self._methods.clear()
        self._attributes.clear()


def _is_conditional(value: Any) -> bool:
    """Whether `value` is a descriptor like scikit-learn's `available_if`: gives `fn` if `check` allows."""
    return not inspect.isfunction(value) and hasattr(value, "fn") and callable(getattr(value, "check", None))


def _is_method(value: object) -> bool:
    """Whether a call of `value` can be stood around: no property, no class, nothing to await."""
    if isinstance(value, (staticmethod, classmethod)) or inspect.iscoroutinefunction(value):
        return False
    return inspect.isroutine(value) and callable(value)


def _patched(value: Any) -> Method | None:
    """Our method in what stands in a class, if there is one."""
    if type(value) is Method:
        return value
    inner = vars(value).get("fn") if hasattr(value, "__dict__") else None
    return inner if type(inner) is ConditionalMethod else None


def _importable(cls: type) -> bool:
    found: Any = sys.modules.get(cls.__module__)
    for part in cls.__qualname__.split("."):
        found = getattr(found, part, None)
    return found is cls


def _travels_by_value(cls: type) -> bool:
    """Whether cloudpickle sends the class with its methods: a look-up would find it unfinished."""
    if cls.__module__ == "__main__":
        return True
    cloudpickle: Any = sys.modules.get("cloudpickle.cloudpickle")
    registered = cloudpickle.list_registry_pickle_by_value() if cloudpickle is not None else ()
    return any(f"{cls.__module__}.".startswith(f"{name}.") for name in registered)
