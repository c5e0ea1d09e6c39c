"""What the hooks of a library put around its classes.

`predictions` around methods that answer, `suppressing` around those that ask models for a purpose of their own,
`training` around those after which a model is another one.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from ..patch import Around, Patches
from ..wrap import Input
from .methods import first, predicting
from .sklearn import patch_tree, tree


def predictions(patches: Patches, cls: type, *names: str, rows_of: Input = first) -> None:
    """Record the outermost calls of these methods of `cls`, where it or what derives from it defines them.

    `rows_of` finds the input among the arguments of a call, the object itself first of them.
    """
    for part in tree(cls):
        for name in names:
            patches.add(part, name, predicting(name, cls, native=True, rows_of=rows_of))


def estimators_too(patches: Patches, cls: type) -> None:
    """Record `cls`, an estimator of scikit-learn's kind, and what derives from it, with scikit-learn or without."""
    base = sys.modules.get("sklearn.base")
    if base is not None:  # without scikit-learn nobody can make one
        patch_tree(cls, base.BaseEstimator, patches)


def around(patches: Patches, cls: type, how: Around, *names: str) -> None:
    """Put `how` around these methods of `cls` and of what derives from it."""
    for part in tree(cls):
        for name in names:
            patches.add(part, name, how)


def given(names: Sequence[str], args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a call by name, `names` being those that can be given by position."""
    return dict(zip(names, args, strict=False)) | kwargs
