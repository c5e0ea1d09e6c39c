"""The baseline file: its JSON form, and reading one that may be wrong.

A file comes from elsewhere and is not trusted: sizes are capped, every number is checked, and an error names
the file, the key and the way out. docs/baseline.md describes the format.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from . import semconv
from .errors import BaselineError
from .summary import (
    CategoricalSummary,
    Counts,
    Floats,
    NumericSummary,
    OpaqueSummary,
    Projection,
    Summary,
)
from .untrusted import WAY_OUT, Node, show

if TYPE_CHECKING:
    from .baseline import Baseline

SCHEMA = 1

MOST_FEATURES = 10_000
MOST_COLUMNS = 1_000_000
MOST_BOUNDS = 512
MOST_CATEGORIES = 1_000
MOST_QUANTILES = 1_001
MOST_PROJECTIONS = 64

T = TypeVar("T")

_LINE = 100
"""Characters within which a small object stands on one line."""


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
    """JSON for people and for diff: one key a line; lists of plain values, and small objects, on one line."""
    deeper = indent + "  "
    if isinstance(value, dict) and (any(map(_nested, value.values())) or len(_text(value)) > _LINE):
        lines = [f"{deeper}{_text(key)}: {layout(inner, deeper)}" for key, inner in value.items()]
        return "{\n" + ",\n".join(lines) + f"\n{indent}}}"
    if isinstance(value, list) and any(map(_nested, value)):
        return "[\n" + ",\n".join(deeper + layout(inner, deeper) for inner in value) + f"\n{indent}]"
    return _text(value)


def _nested(value: object) -> bool:
    return isinstance(value, (dict, list))


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


def parse(text: str, source: str) -> dict[str, Any]:
    """The fields of a `Baseline` from the text of a file; `source` names it in errors."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BaselineError(f"baseline {source!r} is not JSON ({error}); {WAY_OUT}") from error
    root = Node(value, "", source)
    if not isinstance(value, dict):
        root.fail(f"must be an object, not {show(value)}")
    _check_schema(root)
    return _fields(root.object(len(_KEYS), _KEYS))


_CARD = ("owner", "description", "intended_use")
_OUTPUTS = ("score_type", "scores", "predictions", "outcomes", "uncertainty", "label_counts", "projections")
_KEYS = frozenset(
    {
        "schema",
        "id",
        "model",
        "version",
        "created_at",
        "rows",
        *_CARD,
        "performance",
        "columns",
        "features",
        *_OUTPUTS,
    }
)
_STATES = frozenset(semconv.STATES)
_COMMON = frozenset({"kind", "n", "states", "importance"})
_MOMENTS = ("min", "max", "mean", "std", "reach", "ks_error")
_OF_KIND = {
    "numeric": _COMMON | {*_MOMENTS, "allowed", "bounds", "bucket_counts", "quantiles"},
    "categorical": _COMMON | {"categories", "other", "singletons"},
    "opaque": _COMMON,
}


def _check_schema(root: Node) -> None:
    schema = root.child("schema").value
    if schema != SCHEMA:
        raise BaselineError(
            f"baseline {root.source!r} has schema {show(schema)}, this version reads {SCHEMA}; "
            "make it again with Baseline.fit, or: pip install -U otel-ml"
        )


def _fields(root: Node) -> dict[str, Any]:
    columns = _texts(root.child("columns"), MOST_COLUMNS)
    known = frozenset(columns)
    features = {
        name: _read_summary(node, name) for name, node in root.child("features").object(MOST_FEATURES).items()
    }
    for name in features:
        if name not in known:
            root.child("features").child(name).fail("is not among the columns")
    scores = root.get("scores", lambda node: _read_numeric(node, "score"))
    return {
        **{key: root.get(key, Node.text) for key in _CARD},
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
        "projections": root.get("projections", lambda node: _read_projections(node, features)) or (),
        "performance": root.get("performance", _read_performance) or {},
    }


def _read_summary(node: Node, name: str) -> Summary:
    kind = node.object(20).child("kind").value
    if kind == "numeric":
        return _read_numeric(node, name)
    if kind == "categorical":
        return _read_categorical(node, name)
    if kind == "opaque":
        return OpaqueSummary(name=name, **_read_common(node, "opaque"))
    return node.child("kind").fail(f"must be numeric, categorical or opaque, not {show(kind)}")


def _read_common(node: Node, kind: str) -> dict[str, Any]:
    node.object(20, _OF_KIND[kind])
    if node.child("kind").value != kind:
        node.child("kind").fail(f"must be {kind}, not {show(node.value['kind'])}")
    n = node.child("n").integer()
    given = {state: rows.integer() for state, rows in node.child("states").object(6, _STATES).items()}
    if sum(given.values()) != n:
        node.child("states").fail(f"must add up to n = {n}, not {sum(given.values())}")
    states = np.array([given.get(state, 0) for state in semconv.STATES], dtype=np.int64)
    return {"n": n, "states": states, "importance": node.get("importance", Node.number)}


def _read_numeric(node: Node, name: str) -> NumericSummary:
    common = _read_common(node, "numeric")
    bounds = node.child("bounds").numbers(MOST_BOUNDS)
    if np.any(np.diff(bounds) <= 0):
        node.child("bounds").fail("must ascend strictly")
    moments: dict[str, Any] = {key: node.child(key).number() for key in _MOMENTS}
    summary = NumericSummary(
        name=name,
        **common,
        **moments,
        bounds=bounds,
        bucket_counts=node.child("bucket_counts").counts(MOST_BOUNDS + 1, exactly=len(bounds) + 1),
        allowed=node.get("allowed", _read_allowed),
        quantiles=node.get("quantiles", lambda q: q.numbers(MOST_QUANTILES)),
    )
    _check_numeric(node, summary)
    return summary


def _check_numeric(node: Node, summary: NumericSummary) -> None:
    finite = int(summary.states[[0, 3]].sum())
    if summary.histogram.total != finite or finite == 0:
        node.child("bucket_counts").fail(
            f"must add up to the rows with a finite number, {finite}, of which there is 1 or more, "
            f"not to {summary.histogram.total}"
        )
    if summary.min > summary.max:
        node.child("min").fail(f"must not be above max: {summary.min} > {summary.max}")
    for key in ("std", "reach", "ks_error"):
        if getattr(summary, key) < 0:
            node.child(key).fail(f"must not be negative, as {getattr(summary, key)}")
    if summary.quantiles is not None and np.any(np.diff(summary.quantiles) < 0):
        node.child("quantiles").fail("must ascend")


def _read_categorical(node: Node, name: str) -> CategoricalSummary:
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


def _read_label_counts(node: Node, scores: NumericSummary | None) -> dict[str, Counts]:
    if scores is None:
        node.fail("needs scores: it counts labels in their buckets")
    buckets = len(scores.bucket_counts)
    return {
        label: counts.counts(buckets, exactly=buckets)
        for label, counts in node.object(MOST_CATEGORIES).items()
    }


def _read_projections(node: Node, known: Mapping[str, Summary]) -> tuple[Projection, ...]:
    node.object(4, frozenset({"features", "centre", "scale", "components"}))
    features = _texts(node.child("features"), MOST_FEATURES)
    for name in features:
        if not isinstance(known.get(name), NumericSummary):
            node.child("features").fail(f"must name numeric features, which {show(name)} is not")
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
            loadings=_read_loadings(inner.object(2).child("loadings"), len(features)),
            summary=_read_numeric(inner.child("summary"), name),
        )
        for name, inner in components.items()
    )


def _read_loadings(node: Node, number: int) -> Floats:
    loadings = node.numbers(MOST_FEATURES, exactly=number)
    if np.any(np.abs(loadings) > 1):
        node.fail("must be those of a direction, each between -1 and 1")
    return loadings


def _read_allowed(node: Node) -> tuple[float, float]:
    low, high = node.numbers(2, exactly=2).tolist()
    if low > high:
        node.fail(f"must be [lowest, highest], not {node.value}")
    return low, high


def _read_performance(node: Node) -> dict[str, float]:
    return {metric: value.number() for metric, value in node.object(MOST_CATEGORIES).items()}


def _read_score_type(node: Node) -> str:
    if node.value not in semconv.SCORE_TYPES:
        node.fail(f"must be one of {', '.join(semconv.SCORE_TYPES)}, not {show(node.value)}")
    return str(node.value)


def _read_time(node: Node) -> datetime:
    try:
        time = datetime.fromisoformat(node.text().replace("Z", "+00:00"))
        if time.tzinfo is None:
            raise ValueError
        return time.astimezone(timezone.utc)
    except (ValueError, OverflowError):
        return node.fail(f"must be a time such as 2026-01-31T12:00:00+00:00, not {show(node.value)}")


def _texts(node: Node, most: int) -> tuple[str, ...]:
    texts = tuple(
        Node(value, f"{node.key}[{i}]", node.source).text() for i, value in enumerate(node.listed(most))
    )
    if len(set(texts)) != len(texts):
        node.fail("must not hold a name twice")
    return texts
