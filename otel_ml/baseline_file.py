"""The baseline file: its JSON form, and reading one that may be wrong.

A file comes from elsewhere and is not trusted: sizes are capped, every number is checked, and an error names the
file, the key and the way out. docs/baseline.md describes the format.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import numpy as np

from . import semconv
from .errors import BaselineError
from .summary import CategoricalSummary, Counts, Floats, NumericSummary, OpaqueSummary, Projection, Summary

if TYPE_CHECKING:
    from .baseline import Baseline

SCHEMA = 1

MOST_FEATURES = 10_000
MOST_BOUNDS = 512
MOST_CATEGORIES = 1_000
MOST_QUANTILES = 1_001
MOST_PROJECTIONS = 64
LONGEST_TEXT = 4_096
LARGEST_COUNT = 2**53

T = TypeVar("T")

_CARD = ("owner", "description", "intended_use")


# --- writing ----------------------------------------------------------------------------------------------


def encode(baseline: Baseline) -> dict[str, Any]:
    """The content of a baseline as JSON values, without its id."""
    return _given(
        schema=baseline.schema,
        model=baseline.model,
        version=baseline.version,
        created_at=baseline.created_at.isoformat(),
        rows=baseline.rows,
        owner=baseline.owner,
        description=baseline.description,
        intended_use=baseline.intended_use,
        performance=dict(baseline.performance) or None,
        columns=list(baseline.columns),
        features={name: _summary(summary) for name, summary in baseline.features.items()},
        score_type=baseline.score_type,
        scores=_optional(_summary, baseline.scores),
        predictions=_optional(_summary, baseline.predictions),
        outcomes=_optional(_summary, baseline.outcomes),
        uncertainty=_optional(_summary, baseline.uncertainty),
        label_counts={label: counts.tolist() for label, counts in baseline.label_counts.items()} or None,
        projections=_projections(baseline.projections),
    )


def content_hash(content: Mapping[str, Any]) -> str:
    """16 hexadecimal digits that are equal for equal content, however it is laid out."""
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def layout(value: Any, indent: str = "") -> str:
    """JSON for people and for diff: one key a line, lists of plain values on one line."""
    deeper = indent + "  "
    if isinstance(value, dict) and value:
        lines = [f"{deeper}{_text(key)}: {layout(inner, deeper)}" for key, inner in value.items()]
        return "{\n" + ",\n".join(lines) + f"\n{indent}}}"
    if isinstance(value, list) and any(isinstance(inner, (dict, list)) for inner in value):
        return "[\n" + ",\n".join(deeper + layout(inner, deeper) for inner in value) + f"\n{indent}]"
    return _text(value)


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _given(**keys: Any) -> dict[str, Any]:
    return {key: value for key, value in keys.items() if value is not None}


def _optional(encoder: Callable[[Any], T], value: object) -> T | None:
    return None if value is None else encoder(value)


def _summary(summary: Summary) -> dict[str, Any]:
    states = zip(semconv.STATES, summary.states.tolist(), strict=True)
    common = _given(
        kind=summary.kind,
        n=summary.n,
        states={state: rows for state, rows in states if rows},
        importance=summary.importance,
    )
    if isinstance(summary, NumericSummary):
        return common | _numeric(summary)
    if isinstance(summary, CategoricalSummary):
        return common | _given(
            categories=dict(summary.categories), other=summary.other, singletons=summary.singletons
        )
    return common


def _numeric(summary: NumericSummary) -> dict[str, Any]:
    return _given(
        min=summary.min,
        max=summary.max,
        mean=summary.mean,
        std=summary.std,
        reach=summary.reach,
        allowed=_optional(list, summary.allowed),
        ks_error=summary.ks_error,
        bounds=summary.bounds.tolist(),
        bucket_counts=summary.bucket_counts.tolist(),
        quantiles=_optional(np.ndarray.tolist, summary.quantiles),
    )


def _projections(projections: tuple[Projection, ...]) -> dict[str, Any] | None:
    """Features, centre and scale are the same for all of them and stand once."""
    if not projections:
        return None
    first = projections[0]
    return {
        "features": list(first.features),
        "centre": first.centre.tolist(),
        "scale": first.scale.tolist(),
        "components": {
            p.summary.name: {"loadings": p.loadings.tolist(), "summary": _summary(p.summary)}
            for p in projections
        },
    }


# --- reading ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Node:
    """A value in the file, with its place."""

    value: Any
    key: str
    source: str

    def fail(self, problem: str) -> NoReturn:
        """Raise the error that names the file, the key and the way out."""
        where = f": {self.key}" if self.key else ""
        raise BaselineError(
            f"baseline {self.source!r}{where} {problem}; load an unchanged copy, or make it again with Baseline.fit"
        )

    def child(self, key: str) -> _Node:
        """The value under `key`, which must be there."""
        if key not in self.value:
            self.fail(f"has no {key!r}")
        return _Node(self.value[key], f"{self.key}.{key}".lstrip("."), self.source)

    def get(self, key: str, read: Callable[[_Node], T]) -> T | None:
        """What `read` makes of the value under `key`; None when it is not there."""
        return read(self.child(key)) if self.value.get(key) is not None else None

    def object(self, most: int, known: frozenset[str] | None = None) -> _Node:
        """This node, which must be an object of at most `most` keys, all of them `known`."""
        if not isinstance(self.value, dict):
            self.fail(f"must be an object, not {_show(self.value)}")
        if len(self.value) > most:
            self.fail(f"has {len(self.value)} keys, more than {most}")
        if known is not None and (unknown := sorted(set(self.value) - known)):
            self.fail(f"has the unknown key {unknown[0][:80]!r} (known are {', '.join(sorted(known))})")
        return self

    def items(self) -> Iterator[tuple[str, _Node]]:
        """Keys and values of an object."""
        for key in self.value:
            if len(key) > LONGEST_TEXT:
                self.fail(f"has a key of {len(key)} characters, more than {LONGEST_TEXT}")
            yield key, self.child(key)

    def text(self) -> str:
        """A string."""
        if not isinstance(self.value, str) or not 0 < len(self.value) <= LONGEST_TEXT:
            self.fail(f"must be a text of 1 to {LONGEST_TEXT} characters, not {_show(self.value)}")
        return self.value

    def integer(self) -> int:
        """A count."""
        if not _is_count(self.value):
            self.fail(f"must be a count, 0 or more, not {_show(self.value)}")
        return int(self.value)

    def number(self) -> float:
        """A finite number."""
        if not _is_finite(self.value):
            self.fail(f"must be a finite number, not {_show(self.value)}")
        return float(self.value)

    def listed(self, most: int) -> list[Any]:
        """A list of at most `most` values."""
        if not isinstance(self.value, list):
            self.fail(f"must be a list, not {_show(self.value)}")
        if len(self.value) > most:
            self.fail(f"has {len(self.value)} values, more than {most}")
        return self.value

    def numbers(self, most: int, *, exactly: int | None = None) -> Floats:
        """A list of finite numbers."""
        values = self._all(most, exactly, _is_finite, "a finite number")
        return np.array(values, dtype=np.float64)

    def counts(self, most: int, *, exactly: int) -> Counts:
        """A list of counts."""
        return np.array(self._all(most, exactly, _is_count, "a count, 0 or more"), dtype=np.int64)

    def _all(self, most: int, exactly: int | None, valid: Callable[[Any], bool], what: str) -> list[Any]:
        values = self.listed(most)
        for place, value in enumerate(values):
            if not valid(value):
                self.fail(f"must hold {what} at position {place}, not {_show(value)}")
        if exactly is not None and len(values) != exactly:
            self.fail(f"must hold {exactly} values, not {len(values)}")
        return values


def parse(text: str, source: str) -> dict[str, Any]:
    """The fields of a `Baseline` from the text of a file; `source` names it in errors."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BaselineError(
            f"baseline {source!r} is not JSON ({error}); load an unchanged copy, or make it again with Baseline.fit"
        ) from error
    root = _Node(value, "", source)
    if not isinstance(value, dict):
        root.fail(f"must be an object, not {_show(value)}")
    _check_schema(root)
    return _fields(root.object(len(_KEYS), _KEYS))


_KEYS = frozenset(
    ["schema", "id", "model", "version", "created_at", "rows", "owner", "description", "intended_use", "performance", "columns", "features", "score_type", "scores", "predictions", "outcomes", "uncertainty", "label_counts", "projections"]
)
_STATES = frozenset(semconv.STATES)
_COMMON = frozenset({"kind", "n", "states", "importance"})
_OF_KIND = {
    "numeric": _COMMON
    | set(["min", "max", "mean", "std", "reach", "allowed", "ks_error", "bounds", "bucket_counts", "quantiles"]),
    "categorical": _COMMON | {"categories", "other", "singletons"},
    "opaque": _COMMON,
}


def _check_schema(root: _Node) -> None:
    schema = root.child("schema").value
    if schema != SCHEMA:
        raise BaselineError(
            f"baseline {root.source!r} has schema {_show(schema)}, this version reads {SCHEMA}; "
            "make it again with Baseline.fit, or: pip install -U otel-ml"
        )


def _fields(root: _Node) -> dict[str, Any]:
    columns = _texts(root.child("columns"), MOST_FEATURES)
    features = {
        name: _read_summary(node, name) for name, node in root.child("features").object(MOST_FEATURES).items()
    }
    for name in features:
        if name not in columns:
            root.child("features").child(name).fail("is not among the columns")
    scores = root.get("scores", lambda node: _read_numeric(node, "score"))
    return {
        **{key: root.get(key, _Node.text) for key in _CARD},
        "model": root.child("model").text(),
        "version": root.child("version").text(),
        "created_at": _read_time(root.child("created_at")),
        "rows": root.child("rows").integer(),
        "columns": columns,
        "features": features,
        "score_type": root.get("score_type", _read_score_type),
        "scores": scores,
        "predictions": root.get("predictions", lambda node: _read_categorical(node, "prediction")),
        "outcomes": root.get("outcomes", lambda node: _read_summary(node, "outcome")),
        "uncertainty": root.get("uncertainty", lambda node: _read_numeric(node, "uncertainty")),
        "label_counts": root.get("label_counts", lambda node: _read_label_counts(node, scores)) or {},
        "projections": root.get("projections", _read_projections) or (),
        "performance": root.get("performance", _read_performance) or {},
    }


def _read_summary(node: _Node, name: str) -> Summary:
    kind = node.object(20).child("kind").value
    if kind == "numeric":
        return _read_numeric(node, name)
    if kind == "categorical":
        return _read_categorical(node, name)
    if kind == "opaque":
        return OpaqueSummary(name=name, **_read_common(node, "opaque"))
    node.child("kind").fail(f"must be numeric, categorical or opaque, not {_show(kind)}")


def _read_common(node: _Node, kind: str) -> dict[str, Any]:
    node.object(20, _OF_KIND[kind])
    if node.child("kind").value != kind:
        node.child("kind").fail(f"must be {kind}, not {_show(node.value['kind'])}")
    n = node.child("n").integer()
    given = {state: rows.integer() for state, rows in node.child("states").object(6, _STATES).items()}
    if sum(given.values()) != n:
        node.child("states").fail(f"must add up to n = {n}, not {sum(given.values())}")
    states = np.array([given.get(state, 0) for state in semconv.STATES], dtype=np.int64)
    return {"n": n, "states": states, "importance": node.get("importance", _Node.number)}


def _read_numeric(node: _Node, name: str) -> NumericSummary:
    common = _read_common(node, "numeric")
    bounds = node.child("bounds").numbers(MOST_BOUNDS)
    if np.any(np.diff(bounds) <= 0):
        node.child("bounds").fail("must ascend strictly")
    summary = NumericSummary(
        name=name,
        **common,
        **{key: node.child(key).number() for key in ("min", "max", "mean", "std", "reach", "ks_error")},
        bounds=bounds,
        bucket_counts=node.child("bucket_counts").counts(MOST_BOUNDS + 1, exactly=len(bounds) + 1),
        allowed=node.get("allowed", _read_allowed),
        quantiles=node.get("quantiles", lambda q: q.numbers(MOST_QUANTILES)),
    )
    _check_numeric(node, summary)
    return summary


def _check_numeric(node: _Node, summary: NumericSummary) -> None:
    finite = int(summary.states[[0, 3]].sum())
    if summary.histogram.total != finite or finite == 0:
        node.child("bucket_counts").fail(
            f"must add up to the rows with a finite number, {finite}, and at least 1, not {summary.histogram.total}"
        )
    if summary.min > summary.max:
        node.child("min").fail(f"must not be above max: {summary.min} > {summary.max}")
    for key in ("std", "reach", "ks_error"):
        if getattr(summary, key) < 0:
            node.child(key).fail(f"must not be negative, as {getattr(summary, key)}")
    if summary.quantiles is not None and np.any(np.diff(summary.quantiles) < 0):
        node.child("quantiles").fail("must ascend")


def _read_categorical(node: _Node, name: str) -> CategoricalSummary:
    common = _read_common(node, "categorical")
    categories = {
        category: rows.integer()
        for category, rows in node.child("categories").object(MOST_CATEGORIES).items()
    }
    summary = CategoricalSummary(
        name=name,
        **common,
        categories=categories,
        other=node.child("other").integer(),
        singletons=node.child("singletons").integer(),
    )
    present = summary.n - summary.missing
    if sum(categories.values()) + summary.other != present:
        node.child("categories").fail(
            f"and other must add up to the rows that are not missing, {present}, "
            f"not {sum(categories.values()) + summary.other}"
        )
    return summary


def _read_label_counts(node: _Node, scores: NumericSummary | None) -> dict[str, Counts]:
    if scores is None:
        node.fail("needs scores: it counts labels in their buckets")
    buckets = len(scores.bucket_counts)
    return {
        label: counts.counts(buckets, exactly=buckets)
        for label, counts in node.object(MOST_CATEGORIES).items()
    }


def _read_projections(node: _Node) -> tuple[Projection, ...]:
    node.object(4, frozenset({"features", "centre", "scale", "components"}))
    features = _texts(node.child("features"), MOST_FEATURES)
    centre = node.child("centre").numbers(MOST_FEATURES, exactly=len(features))
    scale = node.child("scale").numbers(MOST_FEATURES, exactly=len(features))
    if np.any(scale <= 0):
        node.child("scale").fail("must be positive")
    components = node.child("components").object(MOST_PROJECTIONS)
    return tuple(
        Projection(
            features=features,
            centre=centre,
            scale=scale,
            loadings=inner.object(2).child("loadings").numbers(MOST_FEATURES, exactly=len(features)),
            summary=_read_numeric(inner.child("summary"), name),
        )
        for name, inner in components.items()
    )


def _read_allowed(node: _Node) -> tuple[float, float]:
    low, high = node.numbers(2, exactly=2).tolist()
    if low > high:
        node.fail(f"must be [lowest, highest], not {node.value}")
    return low, high


def _read_performance(node: _Node) -> dict[str, float]:
    return {metric: value.number() for metric, value in node.object(MOST_CATEGORIES).items()}


def _read_score_type(node: _Node) -> str:
    if node.value not in semconv.SCORE_TYPES:
        node.fail(f"must be one of {', '.join(semconv.SCORE_TYPES)}, not {_show(node.value)}")
    return str(node.value)


def _read_time(node: _Node) -> datetime:
    try:
        time = datetime.fromisoformat(node.text().replace("Z", "+00:00"))
        if time.tzinfo is None:
            raise ValueError
        return time.astimezone(timezone.utc)
    except (ValueError, OverflowError):
        node.fail(f"must be a time with its zone such as 2026-01-31T12:00:00+00:00, not {_show(node.value)}")


def _texts(node: _Node, most: int) -> tuple[str, ...]:
    texts = tuple(
        _Node(value, f"{node.key}[{i}]", node.source).text() for i, value in enumerate(node.listed(most))
    )
    if len(set(texts)) != len(texts):
        node.fail("must not hold a name twice")
    return texts


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= LARGEST_COUNT


def _is_finite(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return abs(value) <= 1.7976931348623157e308 and math.isfinite(value)


def _show(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"
