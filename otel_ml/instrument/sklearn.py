"""Recording the predictions of scikit-learn's classes and of all that derive from them.

Every class of the BaseEstimator tree is patched where it defines a method itself, the ones that are imported
or written later as well; instances never. One call of a user is one prediction, however many estimators take
part in it: what runs inside an observed call, or inside a fit, passes straight through, in joblib's workers
too.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Iterable, Iterator
from types import ModuleType
from typing import Any

from .. import _guard
from ..observer import NOTHING, owner
from ..patch import Around, Patches
from ..wrap import MARK
from .calls import EstimatorCall
from .estimators import describe
from .instrumentor import LibraryInstrumentor
from .methods import predicting, suppressing, suppressing_each, training

__all__ = ["SklearnInstrumentor", "describe"]

PREDICTIONS = ("predict", "predict_proba", "predict_log_proba", "decision_function", "score_samples")
"""Methods whose outermost call is a prediction; `ml.operation.name` is the method's name."""

TRAINING = ("fit", "partial_fit", "fit_predict", "fit_transform")
"""Methods inside which nothing is a prediction, and after which the estimator is another one."""

EVALUATION = ("score",)
"""Methods inside which nothing is a prediction."""

STAGED = ("staged_predict", "staged_predict_proba", "staged_decision_function", "staged_score")
"""Generators over the stages of a boosted model, whose steps are no predictions either."""

TRANSFORMING = {
    "sklearn.ensemble._stacking": ("StackingClassifier", "StackingRegressor"),
    "sklearn.ensemble._voting": ("VotingClassifier", "VotingRegressor"),
    "sklearn.impute._iterative": ("IterativeImputer",),
}
"""Classes whose `transform` asks models that are parts of them: no prediction."""


class SklearnInstrumentor(LibraryInstrumentor):
    """Switches the recording of scikit-learn on and off; scikit-learn itself need not be imported yet."""

    distributions = ("scikit-learn",)
    versions = ">= 1.5"


def _arounds(base: type) -> dict[str, Around]:
    return {
        **{name: predicting(name, base) for name in PREDICTIONS},
        **dict.fromkeys(TRAINING, training),
        **dict.fromkeys(EVALUATION, suppressing),
        **dict.fromkeys(STAGED, suppressing_each),
    }


# --- classes ----------------------------------------------------------------------------------------------


def _patch_estimators(module: ModuleType, patches: Patches) -> None:
    """Patch the tree as far as it has grown, and whatever it grows later."""
    base = module.BaseEstimator
    patch = patch_tree(base, base, patches)
    patches.set(base, "__init_subclass__", classmethod(_following(base, patches, patch)))
    patches.add(base, "__setstate__", _completing(patch))


def patch_tree(root: type, base: type, patches: Patches) -> Callable[[type], None]:
    """Patch `root` and all that derives from it so far, estimators by `base`; gives what patches one class more."""
    arounds = _arounds(base)

    def patch(cls: type) -> None:
        # the mixins it is made of too: `predict` often stands in one
        for part in cls.__mro__[:-1]:
            for name in arounds.keys() & vars(part).keys():
                if not getattr(vars(part)[name], MARK, False):
                    patches.add(part, name, arounds[name])

    for cls in tree(root):
        with _guard.guard("patch"):  # one that cannot be patched leaves the others observed
            patch(cls)
    return patch


def tree(root: type) -> Iterator[type]:
    """The class and all that derive from it so far."""
    yield root
    cls: type
    for cls in root.__subclasses__():
        yield from tree(cls)


def _following(base: Any, patches: Patches, patch: Callable[[type], None]) -> Callable[..., None]:
    own: Any = vars(base).get("__init_subclass__")

    def init_subclass(cls: Any, **kwargs: Any) -> None:
        inherited = super(base, cls).__init_subclass__ if own is None else own.__get__(None, cls)
        inherited(**kwargs)
        if patches.active:
            with _guard.guard("patch"):
                patch(cls)

    return init_subclass


def _completing(patch: Callable[[type], None]) -> Around:
    """A class that cloudpickle rebuilds gets its methods after it is made: look again at an instance."""
    seen: weakref.WeakSet[type] = weakref.WeakSet()

    def around(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            result = function(*args, **kwargs)
            if type(args[0]) not in seen:
                seen.add(type(args[0]))
                with _guard.guard("patch"):
                    patch(type(args[0]))
            return result

        return call

    return around


# --- joblib's workers -------------------------------------------------------------------------------------


class _Carried:
    """A task that runs, in whatever thread or process, as part of the call it was made in."""

    def __init__(self, task: Callable[..., Any], running: Any = NOTHING) -> None:
        self._task = task
        self._running = running

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        token = owner.set(self._running)
        try:
            return self._task(*args, **kwargs)
        finally:
            owner.reset(token)

    def __reduce__(self) -> tuple[Any, ...]:
        return _Carried, (self._task,)  # another process has no part in this process' telemetry


def _parallel(function: Callable[..., Any]) -> Callable[..., Any]:
    """A ContextVar does not reach joblib's workers: give every task the observed call it belongs to."""

    def call(parallel: Any, *args: Any, **kwargs: Any) -> Any:
        running = owner.get()
        if running is None or len(args) != 1 or not _is_local(parallel):
            return function(parallel, *args, **kwargs)
        tasks = _carried(args[0], running)
        if not isinstance(running, EstimatorCall) or not running.listening:
            return function(parallel, tasks, **kwargs)
        running.listening = False  # what workers compute is a part, of the rows or of the model
        try:
            return function(parallel, tasks, **kwargs)
        finally:
            running.listening = True

    return call


def _is_local(parallel: Any) -> bool:
    """Whether the workers are of this machine; on those of dask or Ray otel-ml may not be installed."""
    return type(getattr(parallel, "_backend", None)).__module__ == "joblib._parallel_backends"


def _carried(tasks: Iterable[Any], running: object) -> Iterator[Any]:
    for task, args, kwargs in tasks:
        if hasattr(task, "function"):  # scikit-learn's delayed, made for this one task; must stay outermost
            task.function = _Carried(task.function, running)
            yield task, args, kwargs
        else:
            yield _Carried(task, running), args, kwargs


def _patch_parallel(module: ModuleType, patches: Patches) -> None:
    patches.add(module.Parallel, "__call__", _parallel)


# --- evaluation -------------------------------------------------------------------------------------------


def _patch_validation(module: ModuleType, patches: Patches) -> None:
    """The inner functions: those around them may have been imported by name before we came."""
    for name in (
        "_fit_and_predict", "_fit_and_score", "_incremental_fit_estimator", "_permutation_test_score",
    ):  # fmt: skip
        patches.add_function(module, name, suppressing)


def _patch_scorers(module: ModuleType, patches: Patches) -> None:
    for name in ("_BaseScorer", "_MultimetricScorer"):
        scorer = getattr(module, name, None)
        if scorer is not None:
            patches.add(scorer, "__call__", suppressing)


def suppressing_functions(*names: str) -> Callable[[ModuleType, Patches], None]:
    """A hook for inner functions that evaluate, which are looked up in their module at every call."""

    def hook(module: ModuleType, patches: Patches) -> None:
        for name in names:
            patches.add_function(module, name, suppressing)

    return hook


def _patch_transforming(module: ModuleType, patches: Patches) -> None:
    for name in TRANSFORMING[module.__name__]:
        patches.add(getattr(module, name), "transform", suppressing)


def _patch_displays(module: ModuleType, patches: Patches) -> None:
    """Pictures of how good a model is: they predict what they show."""
    for kind in list(vars(module).values()):
        if isinstance(kind, type) and kind.__name__.endswith("Display"):
            for name in ("from_estimator", "from_cv_results"):
                made = vars(kind).get(name)
                if isinstance(made, classmethod):
                    draw = functools.wraps(made.__func__)(suppressing(made.__func__))
                    patches.set(kind, name, classmethod(draw))


_DISPLAYS = (
    "sklearn.calibration",
    "sklearn.inspection._plot.decision_boundary",
    *(
        f"sklearn.metrics._plot.{name}"
        for name in ("confusion_matrix", "det_curve", "precision_recall_curve", "regression", "roc_curve")
    ),
)


# --- mlflow -----------------------------------------------------------------------------------------------


def _suppressing_training(function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        if len(args) > 3 and args[2] in (*TRAINING, *EVALUATION):
            args = (*args[:3], suppressing(args[3]), *args[4:])
        return function(*args, **kwargs)

    return call


def _patch_mlflow(module: ModuleType, patches: Patches) -> None:
    """Autologging switched on after us stands around our `fit`, and predicts its training data for metrics."""
    patches.add_function(module, "_patch_estimator_method_if_available", _suppressing_training)


SklearnInstrumentor.hooks = {
    "sklearn.base": _patch_estimators,
    "sklearn.utils.parallel": _patch_parallel,
    "sklearn.model_selection._validation": _patch_validation,
    "sklearn.metrics._scorer": _patch_scorers,
    "sklearn.inspection._partial_dependence": suppressing_functions("_partial_dependence_brute"),
    "sklearn.inspection._permutation_importance": suppressing_functions("_weights_scorer"),
    **dict.fromkeys(TRANSFORMING, _patch_transforming),
    **dict.fromkeys(_DISPLAYS, _patch_displays),
    "mlflow.sklearn": _patch_mlflow,
}
