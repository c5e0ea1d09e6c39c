"""Recording the predictions of ONNX Runtime: every way to run an InferenceSession is a call of one model, `run`.

What goes in and comes out is read as `tensors` says. The inputs of an IOBinding are those bound through its methods
since it was instrumented; what lies on another device than the CPU is not copied, only its rows are counted.
`run_async` is not recorded.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from io import BytesIO
from os import SEEK_END
from pathlib import PurePath
from types import ModuleType
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np

from .. import _guard
from ..library import Library, Question, teach
from ..model import Model
from ..patch import Patches
from ..snapshot import Unread
from .instrumentor import LibraryInstrumentor
from .native import around, predictions
from .tensors import columns_of, labelled, length, read_feed, read_outputs

_NO_VERSION = (0, 2**63 - 1)
"""What `ModelMetadata.version` is when nobody gave the model one."""
_NO_NAME = re.compile(r"[0-9a-f]{32}|main_graph|torch[-_]jit(-export)?|tf2onnx|model|graph|", re.IGNORECASE)
"""What exporters, and those who store their files, call every model."""
_HASHED = 2**22
"""Bytes at either end of a file that tell it from others."""


class OnnxRuntimeInstrumentor(LibraryInstrumentor):
    """Switches the recording of ONNX Runtime on and off; ONNX Runtime itself need not be imported yet."""

    distributions = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-directml", "onnxruntime-openvino")
    versions = ">= 1.19"


class _Given:
    """The input of a call."""

    __slots__ = ("feed", "session")

    def __init__(self, session: Any, feed: Any) -> None:
        self.session = session
        self.feed = feed

    def __len__(self) -> int:
        return length(self.feed.values())


class _Sessions(Library):
    """InferenceSession."""

    system = "onnxruntime"
    asked_once = True

    def name(self, obj: Any) -> str | None:
        """That of the graph, else of the file, unless every model is called so."""
        graph = re.sub(r"^ONNX\((.*)\)$", r"\1", obj.get_modelmeta().graph_name)
        path = getattr(obj, "_model_path", None)
        names = (graph, PurePath(path).stem if path else "")
        return next((name for name in names if not _NO_NAME.fullmatch(name)), None)

    def version(self, obj: Any) -> str | None:
        """The `model_version` that the file declares."""
        declared = obj.get_modelmeta().version
        return None if declared in _NO_VERSION else str(declared)

    def classes(self, obj: Any) -> tuple[object, ...] | None:
        """A session knows no classes: where it names labels, the place of a probability is not its label."""
        return () if labelled(obj.get_outputs()) else None

    def feature_names(self, obj: Any) -> tuple[str, ...] | None:
        """Names of several inputs; of one, the baseline has them."""
        return columns_of(obj.get_inputs())

    def content(self, obj: Any) -> Iterator[str]:
        """What the file says of the model, its inputs and outputs, and a hash of the file itself."""
        meta = obj.get_modelmeta()
        yield from (meta.graph_name, meta.domain, meta.producer_name, meta.description, str(meta.version))
        yield repr(sorted(meta.custom_metadata_map.items()))
        for node in (*obj.get_inputs(), *obj.get_outputs()):
            yield f"{node.name} {node.type} {node.shape}"
        yield from _hashed(obj)

    def asked(
        self, operation: str, answers: str, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Question | None:
        """A run, whichever way its tensors come and go."""

        def read(outputs: Any) -> Any:
            given = _WAYS[operation](args, kwargs)
            if operation == "run_with_iobinding":
                outputs, names = _argument(1, "iobinding", args, kwargs).get_outputs(), None
            else:
                names = _argument(1, "output_names", args, kwargs)
            named = (lambda: names) if names else (lambda: [node.name for node in args[0].get_outputs()])
            return read_outputs(outputs, named, len(given))

        return Question("run", "run", read)

    def rows(self, given: Any, model: Model) -> Any:
        """The tensor of a single input, columns of several."""
        feed = given.feed
        if type(feed) is not dict and not isinstance(feed, Mapping):  # the session will say so
            return Unread(None, 1)
        if len(feed) == 1:
            inputs = list(feed)
            matrix = feed[inputs[0]]
            if type(matrix) is np.ndarray and matrix.ndim == 2:  # nearly always
                return matrix
        else:
            inputs = [node.name for node in given.session.get_inputs()]
        rows = read_feed(feed, inputs, model.feature_names)
        if model.baseline is None or type(rows) is Unread:
            return rows
        return _by_place(rows, model.feature_names, model.baseline.columns)


teach(_Sessions(), "onnxruntime.capi.onnxruntime_inference_collection.Session")


def _hashed(session: Any) -> Iterator[str]:
    """A hash of the file, of a large one of its size and its ends; nothing of a file that is not there any more.

    Weights that are kept in files of their own are not in it.
    """
    content: Any = getattr(session, "_model_bytes", None)
    path: Any = getattr(session, "_model_path", None)
    if content is None and path is None:
        return
    with suppress(OSError), open(path, "rb") if content is None else BytesIO(content) as file:
        size = file.seek(0, SEEK_END)
        digest = hashlib.sha256(str(size).encode())
        for start in (0, max(_HASHED, size - _HASHED)):
            file.seek(start)
            digest.update(file.read(_HASHED))
        yield digest.hexdigest()


def _by_place(rows: Any, names: Sequence[str] | None, known: Sequence[str]) -> Any:
    """Columns of several inputs under the names of the baseline, when it has as many and none of theirs."""
    if names is None or len(names) != len(known) or not set(names).isdisjoint(known):
        return rows
    columns = rows.values() if isinstance(rows, dict) else rows.T
    return dict(zip(known, columns, strict=True))


# --- the input of a call ----------------------------------------------------------------------------------


def _argument(place: int, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return args[place] if len(args) > place else kwargs.get(name)


def _fed(keyword: str) -> Callable[[tuple[Any, ...], dict[str, Any]], _Given]:
    def given(args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Given:
        return _Given(args[0], args[2] if len(args) > 2 else kwargs.get(keyword))

    return given


def _bound(args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Given:
    return _Given(args[0], _bindings.get(_argument(1, "iobinding", args, kwargs), {}))


_WAYS = {
    "run": _fed("input_feed"),
    "run_with_ort_values": _fed("input_dict_ort_values"),
    "run_with_iobinding": _bound,
}
"""Where the ways to run a session have the input."""
_bindings: WeakKeyDictionary[Any, dict[str, Any]] = WeakKeyDictionary()
"""What is bound to the inputs of an IOBinding: it does not tell."""


class _Elsewhere(NamedTuple):
    """Stands for a tensor of which only the shape is known."""

    shape: Sequence[int]


def _binding(function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        result = function(*args, **kwargs)
        with _guard.guard("binding"):
            value = kwargs.get("arr_on_cpu", kwargs.get("ortvalue")) if len(args) < 3 else args[2]
            if len(args) > 3 or "shape" in kwargs:  # bind_input: an address on some device
                value = _Elsewhere(_argument(5, "shape", args, kwargs))
            _bindings.setdefault(args[0], {})[_argument(1, "name", args, kwargs)] = value
        return result

    return call


def _unbinding(function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        _bindings.pop(args[0], None)
        return function(*args, **kwargs)

    return call


def _patch(module: ModuleType, patches: Patches) -> None:
    for way, rows_of in _WAYS.items():
        predictions(patches, module.Session, way, rows_of=rows_of)
    around(patches, module.IOBinding, _binding, "bind_cpu_input", "bind_input", "bind_ortvalue_input")
    around(patches, module.IOBinding, _unbinding, "clear_binding_inputs")


OnnxRuntimeInstrumentor.hooks = {"onnxruntime.capi.onnxruntime_inference_collection": _patch}
