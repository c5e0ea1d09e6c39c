"""Recording the predictions of models that `mlflow.pyfunc.load_model` gives.

A call of a PyFuncModel is one prediction, whatever the model inside is made of. What the answer means that model
says; who it is, MLflow:

| loaded from | name | version |
|---|---|---|
| models:/churn/3, a path to where it was fetched from there | churn | 3 |
| models:/churn@champion, models:/churn/latest | churn | its id: of the logged model, in MLflow 2 of the run |
| runs:/<run>/churn | churn | the same |
| models:/<id of a logged model>, a path | logged as, in MLflow 2; else its class | the same; without one its uuid |

What MLflow itself predicts, to log a model with a signature or to evaluate it, is not recorded.
"""

from __future__ import annotations

import functools
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import urlsplit

from .. import _guard
from ..library import SKLEARN, Library, Question, library_of, teach
from ..model import Task
from ..patch import Patches
from .instrumentor import LibraryInstrumentor
from .methods import suppressing
from .native import predictions
from .sklearn import PREDICTIONS, suppressing_functions
from .tensors import length, read_outputs

_DEFAULT_NAME = "model"
"""What nearly every model of MLflow 2 is logged under."""
_REGISTERED = "registered_model_meta"
_KEPT = 1000
"""Models, at most, of which it is known where they were loaded from."""


class MLflowInstrumentor(LibraryInstrumentor):
    """Switches the recording of MLflow's pyfunc on and off; MLflow itself need not be imported yet."""

    distributions = ("mlflow", "mlflow-skinny")
    versions = ">= 2.16"


class _Models(Library):
    """PyFuncModel."""

    system = "mlflow"
    asked_once = True

    def name(self, obj: Any) -> str | None:
        """That of the address it was loaded from, or the one it was logged under."""
        address, logged = _loaded.get(_uuid(obj), (None, None))[0], obj.metadata.artifact_path or ""
        for name in (address, None if "/" in logged else logged):
            if name and name != _DEFAULT_NAME:
                return name
        inner = self.inner(obj)
        return type(_raw(obj) or obj).__name__ if inner is None else library_of(inner).name(inner)

    def version(self, obj: Any) -> str | None:
        """That of the address, else whatever tells it from others in MLflow."""
        meta = obj.metadata
        ids = (getattr(meta, "model_id", None), meta.run_id, meta.model_uuid)
        return _loaded.get(_uuid(obj), (None, None))[1] or next(filter(None, ids), None)

    def inner(self, obj: Any) -> object | None:
        """What was logged, if it can be asked what it is: an estimator, a Booster, a session."""
        raw = _raw(obj)
        return raw if library_of(raw) is not SKLEARN or hasattr(raw, "get_params") else None

    def task(self, obj: Any) -> Task | None:
        """As the model inside says."""
        inner = self.inner(obj)
        return None if inner is None else library_of(inner).task(inner)

    def classes(self, obj: Any) -> tuple[object, ...] | None:
        """As the model inside says."""
        inner = self.inner(obj)
        return None if inner is None else library_of(inner).classes(inner)

    def feature_names(self, obj: Any) -> tuple[str, ...] | None:
        """Those of the signature, else as the model inside says."""
        schema = obj.metadata.get_input_schema()
        if schema is not None and schema.has_input_names():
            return tuple(map(str, schema.input_names()))
        inner = self.inner(obj)
        return None if inner is None else library_of(inner).feature_names(inner)

    def content(self, obj: Any) -> Iterator[str]:
        """The ids that MLflow gave it."""
        meta = obj.metadata
        yield from map(str, (meta.model_uuid, meta.run_id, meta.artifact_path, meta.utc_time_created))

    def answers(self, obj: Any) -> str:
        """The method of the model inside that is called."""
        asked = obj.metadata.flavors.get("python_function", {}).get("predict_fn")
        return asked if asked in PREDICTIONS else "predict"

    def asked(
        self, operation: str, answers: str, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Question | None:
        """A prediction, whichever method it ends in."""
        return Question(operation, answers, _picked)


teach(_Models(), "mlflow.pyfunc.PyFuncModel")


def _raw(model: Any) -> object | None:
    """What was logged; None of a flavor that does not show it."""
    with suppress(Exception):
        return model.get_raw_model()  # type: ignore[no-any-return]
    with suppress(Exception):
        return model.unwrap_python_model()  # type: ignore[no-any-return]
    return None


def _picked(output: Any) -> Any:
    """What an output says of the rows; of an ONNX model it is a dict of tensors."""
    if not isinstance(output, dict):
        return output
    return read_outputs(list(output.values()), lambda: list(output), length(output.values()))


# --- where a model was loaded from ------------------------------------------------------------------------

_loaded: OrderedDict[str | None, tuple[str, str | None]] = OrderedDict()
"""Name and version that the address says, by the model's uuid; a registered model does not know them itself."""


def _uuid(model: Any) -> str | None:
    return model.metadata.model_uuid  # type: ignore[no-any-return]


def _loading(function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        model = function(*args, **kwargs)
        with _guard.guard("address"):
            _remember(_uuid(model), *_said(str(args[0] if args else kwargs["model_uri"])))
        return model

    return call


def _remember(uuid: str | None, name: str | None, version: str | None) -> None:
    known = _loaded.get(uuid)
    if name is None or (version is None and known is not None and known[0] == name):
        return
    _loaded[uuid] = name, version
    while len(_loaded) > _KEPT:
        _loaded.popitem(last=False)


def _said(address: str) -> tuple[str | None, str | None]:
    """Name and version in an address, None where it says nothing."""
    split = urlsplit(address, allow_fragments=False)
    *parents, last = split.path.strip("/").split("/")
    if split.scheme == "runs" and parents:
        return last, None
    if split.scheme != "models":
        return _written(Path(split.path if split.scheme == "file" else address) / _REGISTERED)
    if parents:
        return parents[0], last if last.isdigit() else None
    return last.rpartition("@")[0] or None, None


def _written(file: Path) -> tuple[str | None, str | None]:
    """What MLflow writes beside a model that it fetches from the registry, as `mlflow models serve` does."""
    if not file.is_file():
        return None, None
    import yaml  # MLflow cannot be without it

    said = yaml.safe_load(file.read_text(encoding="utf-8"))
    return str(said["model_name"]), str(said["model_version"])


# --- hooks ------------------------------------------------------------------------------------------------


def _patch_pyfunc(module: ModuleType, patches: Patches) -> None:
    predictions(patches, module.PyFuncModel, "predict")
    patches.add_function(module, "load_model", _loading)


def _patch_logging(module: ModuleType, patches: Patches) -> None:
    log = module.Model.log.__func__
    patches.set(module.Model, "log", classmethod(functools.wraps(log)(suppressing(log))))


MLflowInstrumentor.hooks = {
    "mlflow.pyfunc": _patch_pyfunc,
    "mlflow.models.model": _patch_logging,
    "mlflow.models.signature": suppressing_functions("_infer_signature_from_input_example"),
    "mlflow.models.evaluation.base": suppressing_functions("_evaluate"),
}
