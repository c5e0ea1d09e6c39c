"""Recording the predictions of scikit-learn's classes and of all that derive from them.

Every class of the BaseEstimator tree is patched where it defines a method itself, the ones that are imported
or written later as well; instances never. One call of a user is one prediction, however many estimators take
part in it: what runs inside an observed call, or inside a fit, passes straight through, in joblib's workers
too.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Collection, Iterable, Iterator
from types import ModuleType
from typing import Any

import wrapt
from opentelemetry.instrumentation.instrumentor import BaseInstrumentor  # type: ignore[attr-defined]

from .. import _guard, pipeline
from ..observer import NOTHING, Observer, _Nothing, owner
from ..patch import Around, Patches
from ..snapshot import row_count
from ..wrap import MARK
from . import estimators
from .calls import SCORING, EstimatorCall
from .estimators import describe

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


class SklearnInstrumentor(BaseInstrumentor):  # type: ignore[misc]  # has no types
    """Switches the recording of scikit-learn on and off; scikit-learn itself need not be imported yet."""

    def instrumentation_dependencies(self) -> Collection[str]:
        """The versions of scikit-learn that this was built for."""
        return ("scikit-learn >= 1.5",)

    def _instrument(self, **kwargs: Any) -> None:
        global _patches
        pipeline.use(
            meter_provider=kwargs.get("meter_provider"), tracer_provider=kwargs.get("tracer_provider")
        )
        _patches = Patches()
        for module, hook in _HOOKS.items():
            wrapt.register_post_import_hook(_guarded(hook, _patches), module)

    def _uninstrument(self, **_: Any) -> None:
        global _patches
        if _patches is not None:
            _patches.restore()
        _patches = None
        estimators.reset()


_patches: Patches | None = None


def _guarded(hook: Callable[[ModuleType, Patches], None], patches: Patches) -> Callable[[ModuleType], None]:
    """A hook cannot be taken back: one that belongs to patches already restored does nothing."""

    def run(module: ModuleType) -> None:
        if patches.active:
            with _guard.guard(f"instrument {module.__name__}"):
                hook(module, patches)

    return run


# --- what calls do ----------------------------------------------------------------------------------------


def _predicting(operation: str, base: type) -> Around:
    scoring = operation in SCORING

    def around(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            outer = owner.get()
            running = outer[0] if isinstance(outer, list) else outer
            if running is not None and not (isinstance(running, Observer) and running.decorated):
                if scoring and type(outer) is EstimatorCall and outer.listening:
                    return _heard(outer, operation, function, args, kwargs)
                return function(*args, **kwargs)
            # a mixin's method can belong to a class that is no estimator
            if not args or not isinstance(args[0], base):
                return function(*args, **kwargs)
            rows = args[1] if len(args) > 1 else _first(kwargs)
            begun = _begun(operation, args[0], running, rows)
            if begun is None:
                return function(*args, **kwargs)
            if isinstance(begun, _Nothing):  # its parts are no predictions of their own
                return _suppressing(function)(*args, **kwargs)
            return begun.observer.call(function, args, kwargs, rows, begun)

        return call

    return around


def _begun(
    operation: str, estimator: Any, decorated: Observer | None, rows: Any
) -> EstimatorCall | _Nothing | None:
    """A call to observe; None when it is part of the call of a decorated function, NOTHING when we failed."""
    try:
        if decorated is not None and not estimators.speaks_in(estimator, decorated.model):
            return None
        return estimators.call(estimator, operation)
    except Exception as error:
        _guard.failed("describe", error, row_count(rows, None))
        return NOTHING


def _heard(
    outer: EstimatorCall, operation: str, function: Callable[..., Any], args: Any, kwargs: dict[str, Any]
) -> Any:
    output = function(*args, **kwargs)
    try:
        outer.hear(args[0], operation, output)
    except Exception as error:
        _guard.failed("nested", error)
    return output


def _first(kwargs: dict[str, Any]) -> object:
    return kwargs["X"] if "X" in kwargs else next(iter(kwargs.values()), None)


def _suppressing(function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        token = owner.set(NOTHING)
        try:
            return function(*args, **kwargs)
        finally:
            owner.reset(token)

    return call


def _suppressing_each(function: Callable[..., Any]) -> Callable[..., Any]:
    """A generator runs in the context of whoever asks it for more, so only its own steps are suppressed."""

    def call(*args: Any, **kwargs: Any) -> Iterator[Any]:
        step = _suppressing(function(*args, **kwargs).__next__)
        while True:
            try:
                value = step()
            except StopIteration:
                return
            yield value

    return call


def _training(function: Callable[..., Any]) -> Callable[..., Any]:
    suppressed = _suppressing(function)

    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return suppressed(*args, **kwargs)
        finally:
            if args:
                with _guard.guard("fit"):
                    estimators.forget(args[0])

    return call


def _arounds(base: type) -> dict[str, Around]:
    return {
        **{name: _predicting(name, base) for name in PREDICTIONS},
        **dict.fromkeys(TRAINING, _training),
        **dict.fromkeys(EVALUATION, _suppressing),
        **dict.fromkeys(STAGED, _suppressing_each),
    }


# --- classes ----------------------------------------------------------------------------------------------


def _patch_estimators(module: ModuleType, patches: Patches) -> None:
    """Patch the tree as far as it has grown, and whatever it grows later."""
    base = module.BaseEstimator
    arounds = _arounds(base)

    def patch(cls: type) -> None:
        # the mixins it is made of too: `predict` often stands in one
        for part in cls.__mro__[:-1]:
            for name in arounds.keys() & vars(part).keys():
                if not getattr(vars(part)[name], MARK, False):
                    patches.add(part, name, arounds[name])

    for cls in _tree(base):
        with _guard.guard("patch"):  # one that cannot be patched leaves the others observed
            patch(cls)
    patches.set(base, "__init_subclass__", classmethod(_following(base, patches, patch)))
    patches.add(base, "__setstate__", _completing(patch))


def _tree(base: type) -> Iterator[type]:
    yield base
    cls: type
    for cls in base.__subclasses__():
        yield from _tree(cls)


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
        if type(running) is not EstimatorCall or not running.listening:
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
        patches.add_function(module, name, _suppressing)


def _patch_scorers(module: ModuleType, patches: Patches) -> None:
    for name in ("_BaseScorer", "_MultimetricScorer"):
        scorer = getattr(module, name, None)
        if scorer is not None:
            patches.add(scorer, "__call__", _suppressing)


def _suppressing_functions(*names: str) -> Callable[[ModuleType, Patches], None]:
    """A hook for inner functions that evaluate, which are looked up in their module at every call."""

    def hook(module: ModuleType, patches: Patches) -> None:
        for name in names:
            patches.add_function(module, name, _suppressing)

    return hook


def _patch_transforming(module: ModuleType, patches: Patches) -> None:
    for name in TRANSFORMING[module.__name__]:
        patches.add(getattr(module, name), "transform", _suppressing)


def _patch_displays(module: ModuleType, patches: Patches) -> None:
    """Pictures of how good a model is: they predict what they show."""
    for kind in list(vars(module).values()):
        if isinstance(kind, type) and kind.__name__.endswith("Display"):
            for name in ("from_estimator", "from_cv_results"):
                made = vars(kind).get(name)
                if isinstance(made, classmethod):
                    draw = functools.wraps(made.__func__)(_suppressing(made.__func__))
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
            args = (*args[:3], _suppressing(args[3]), *args[4:])
        return function(*args, **kwargs)

    return call


def _patch_mlflow(module: ModuleType, patches: Patches) -> None:
    """Autologging switched on after us stands around our `fit`, and predicts its training data for metrics."""
    patches.add_function(module, "_patch_estimator_method_if_available", _suppressing_training)


_HOOKS: dict[str, Callable[[ModuleType, Patches], None]] = {
    "sklearn.base": _patch_estimators,
    "sklearn.utils.parallel": _patch_parallel,
    "sklearn.model_selection._validation": _patch_validation,
    "sklearn.metrics._scorer": _patch_scorers,
    "sklearn.inspection._partial_dependence": _suppressing_functions("_partial_dependence_brute"),
    "sklearn.inspection._permutation_importance": _suppressing_functions("_weights_scorer"),
    **dict.fromkeys(TRANSFORMING, _patch_transforming),
    **dict.fromkeys(_DISPLAYS, _patch_displays),
    "mlflow.sklearn": _patch_mlflow,
}
