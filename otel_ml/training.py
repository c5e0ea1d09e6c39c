"""Training data as it is given to `Baseline.fit`: checked, named and summarised."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import columns, fitting, semconv, uncertainty
from .binning import BUCKETS
from .columns import Column, SparseColumns, Table
from .errors import BaselineError
from .fitting import NAMED, Detail
from .summary import CategoricalSummary, Counts, NumericSummary, Summary

DECLARED = 200
"""Columns of a sparse matrix that are summarised: its service records no more of them."""


class Documents(dict[str, Column]):
    """One column of texts, as a text pipeline takes them: its summary is opaque, whatever they are."""


class Sparse(Mapping[str, Column]):
    """Named columns of a sparse matrix, each made dense when it is asked for."""

    def __init__(self, names: Sequence[str], columns: SparseColumns) -> None:
        self._places = {name: place for place, name in enumerate(names)}
        self._columns = columns

    def __getitem__(self, name: str) -> Column:
        found: Column = self._columns[self._places[name]]
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def declared(self, important: Mapping[str, float], excluded: Collection[str]) -> frozenset[str]:
        """The most important columns that are not excluded, then those with the most entries."""
        stored = self._columns.stored()
        names = [name for name in self if name not in excluded]
        names.sort(key=lambda name: (-important.get(name, 0.0), -stored[self._places[name]]))
        return frozenset(names[:DECLARED])


@dataclass(frozen=True, slots=True, kw_only=True)
class Outputs:
    """What the model made of the rows, and what was true: one value a row each, None where not given."""

    scores: Column | None = None
    predictions: Column | None = None
    labels: Column | None = None
    uncertainty: Column | None = None

    @classmethod
    def read(cls, rows: int, **given: object) -> Outputs:
        """The given values as columns. Raises `BaselineError` when one has not `rows` values.

        `scores` of (n, k) are probabilities, and give the uncertainty too where that says more than they do.
        """
        p = _distributions(given.get("scores"))
        if p is not None:
            given["scores"] = uncertainty.score(p)
            if p.shape[1] > 2 and given.get("uncertainty") is None:
                given["uncertainty"] = uncertainty.MEASURES[uncertainty.COUNTED](p)
        return cls(
            **{name: _line(name, values, rows) for name, values in given.items() if values is not None}
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What `Baseline.fit` was told about the data."""

    categorical: Iterable[str]
    exclude: Iterable[str]
    allowed: Mapping[str, tuple[float, float]]
    importance: Mapping[str, float] | Sequence[float] | None
    threshold: float | None
    score_type: str | None
    projections: bool
    detail: Detail

    @classmethod
    def read(cls, *, resolution: str, quantiles: bool, **given: Any) -> Options:
        """Options as a caller gives them. Raises `BaselineError` when there is no such resolution."""
        if resolution not in BUCKETS:
            raise BaselineError(f"resolution is one of {', '.join(BUCKETS)}, not {resolution!r}")
        for names in ("categorical", "exclude"):  # read more than once
            if not isinstance(given[names], str):
                given[names] = tuple(given[names])
        return cls(detail=Detail(buckets=BUCKETS[resolution], quantiles=quantiles), **given)

    def check(self, table: Mapping[str, Column], *, scored: bool) -> None:
        """Raise `BaselineError` when an option cannot be meant for these columns; no value is looked at."""
        _names("categorical", self.categorical, table)
        _names("exclude", self.exclude, table)
        check_known("allowed", self.allowed, table)
        for name, given in self.allowed.items():
            _range(name, given)
        _importance(self.importance, table)
        _check_scores(self, scored)


def fields(table: Mapping[str, Column], outputs: Outputs, options: Options) -> dict[str, Any]:
    """The fields of a `Baseline` that follow from data."""
    made = summaries(
        table,
        categorical=options.categorical,
        exclude=options.exclude,
        allowed=options.allowed,
        importance=options.importance,
        detail=options.detail,
    )
    return {
        "rows": len(next(iter(table.values()))),
        "columns": tuple(table),
        "features": made,
        # Columns of a sparse matrix are zero nearly everywhere: there is little to be said of how they move together.
        "projections": fitting.projections(made, table, options.detail)
        if options.projections and not isinstance(table, Sparse)
        else (),
        **output_summaries(outputs, options),
    }


def table(X: object, features: Sequence[str] | None) -> Mapping[str, Column]:
    """The columns of `X` by name. Raises `BaselineError` without rows, or when names do not fit."""
    features = None if features is None else tuple(map(str, features))
    try:
        read = columns.table(X, width=None if features is None else len(features))
    except ValueError as error:
        raise BaselineError(f"the training data cannot be read: {error}") from error
    if read.rows == 0 or not read.columns:
        nothing = "rows" if read.columns else "columns"
        raise BaselineError(f"the training data has no {nothing}; give the rows the model was trained on")
    named = _named(read, features)
    return Documents(named) if read.documents else named


def summaries(
    table: Mapping[str, Column],
    *,
    categorical: Iterable[str],
    exclude: Iterable[str],
    allowed: Mapping[str, tuple[float, float]],
    importance: Mapping[str, float] | Sequence[float] | None,
    detail: Detail,
) -> dict[str, Summary]:
    """A summary by feature. Raises `BaselineError` when an option names a column that is not there."""
    categorical, excluded = _names("categorical", categorical, table), _names("exclude", exclude, table)
    check_known("allowed", allowed, table)
    important = _importance(importance, table)
    declared = table.declared(important, excluded) if isinstance(table, Sparse) else set(table) - excluded
    made = {
        name: fitting.opaque(name, table[name], important.get(name))
        if isinstance(table, Documents) and name not in categorical
        else fitting.summarise(
            name,
            table[name],
            categorical=name in categorical,
            importance=important.get(name),
            allowed=_range(name, allowed[name]) if name in allowed else None,
            detail=detail,
        )
        for name in table
        if name in declared
    }
    for name in allowed:
        if not isinstance(made.get(name), NumericSummary):
            raise BaselineError(
                f"allowed= has a range for {name!r}, which is no numeric feature; leave it out"
            )
    return made


def output_summaries(outputs: Outputs, options: Options) -> dict[str, Any]:
    """The fields of a `Baseline` that describe outputs."""
    _check_scores(options, outputs.scores is not None)
    detail = options.detail
    fields: dict[str, Any] = {}
    if outputs.scores is not None:
        fields["scores"] = _some_numbers("score", outputs.scores, options.threshold, detail)
        fields["score_type"] = score_type(fields["scores"], options.score_type)
    if outputs.predictions is not None:
        fields["predictions"] = fitting.categorical("prediction", outputs.predictions)
    if outputs.uncertainty is not None:
        fields["uncertainty"] = _some_numbers("uncertainty", outputs.uncertainty, None, detail)
    if outputs.labels is not None:
        fields["outcomes"] = _outcomes(outputs.labels, detail)
    return fields | _label_counts(outputs, fields.get("scores"), fields.get("outcomes"))


def recounted_outputs(outputs: Outputs, known: Mapping[str, Summary | None]) -> dict[str, Any]:
    """The same fields for other rows, on the `known` summaries; `BaselineError` unless both have the same."""
    given = {
        "scores": outputs.scores,
        "predictions": outputs.predictions,
        "outcomes": outputs.labels,
        "uncertainty": outputs.uncertainty,
    }
    fields: dict[str, Any] = {}
    for key, column in given.items():
        summary = known[key]
        if (summary is None) != (column is None):
            argument = "labels" if key == "outcomes" else key
            has, give = ("no ", "leave out") if summary is None else ("", "give")
            raise BaselineError(f"the baseline has {has}{key}; {give} {argument}=")
        fields[key] = None if summary is None or column is None else fitting.recount(summary, column)
    return fields | _label_counts(outputs, fields["scores"], fields["outcomes"])


def _named(read: Table, features: Sequence[str] | None) -> Mapping[str, Column]:
    if read.names is None:
        return _given_names(read.columns, features)
    _no_twins(read.names)
    by_name = dict(zip(read.names, read.columns, strict=True))
    if features is None:
        return by_name
    check_known("features", features, by_name)
    return {name: by_name[name] for name in features}


def _given_names(read: Sequence[Column], features: Sequence[str] | None) -> Mapping[str, Column]:
    if features is None:
        raise BaselineError(
            f"the training data has {len(read)} columns without names; give features=[…], or a DataFrame"
        )
    if len(features) != len(read):
        raise BaselineError(f"features= has {len(features)} names, the training data has {len(read)} columns")
    _no_twins(features)
    if isinstance(read, SparseColumns):
        return Sparse(features, read)
    return dict(zip(features, read, strict=True))


def _distributions(scores: object) -> NDArray[np.float64] | None:
    """Rows of probabilities (n, k) of two classes or more, as `predict_proba` gives them; None for anything else."""
    shape = getattr(scores, "shape", None)
    if not isinstance(shape, tuple) or len(shape) != 2 or shape[1] < 2:
        return None
    p = np.asarray(scores)
    if p.shape != shape or p.dtype.kind != "f":
        return None
    p = p.astype(np.float64, copy=False)
    return p if uncertainty.excludes(p) else None


def _line(name: str, values: object, rows: int) -> Column:
    try:
        column = columns.series(values)
    except ValueError as error:
        hint = "; of a classifier give predict_proba(X), whose rows add up to 1" if name == "scores" else ""
        raise BaselineError(f"{name}= needs one value a row: {error}{hint}") from error
    if len(column) != rows:
        raise BaselineError(f"{name}= has {len(column)} values, the training data has {rows} rows")
    return column


def _some_numbers(name: str, column: Column, threshold: float | None, detail: Detail) -> NumericSummary:
    summary = fitting.numeric(name, column, threshold=threshold, detail=detail)
    if summary is None:
        raise BaselineError(f"{name} has no finite number in {len(column)} rows; give numbers")
    return summary


def score_type(scores: NumericSummary, given: str | None) -> str:
    """The type that was given, else the one that follows from the range of the scores."""
    return given or ("probability" if scores.min >= 0 and scores.max <= 1 else "value")


def _check_scores(options: Options, scored: bool) -> None:
    if not scored and (options.threshold is not None or options.score_type is not None):
        raise BaselineError("threshold= and score_type= describe scores; give scores= too")
    if options.score_type is not None and options.score_type not in semconv.SCORE_TYPES:
        raise BaselineError(
            f"score_type is one of {', '.join(semconv.SCORE_TYPES)}, not {options.score_type!r}"
        )


def _outcomes(labels: Column, detail: Detail) -> Summary:
    """Labels are classes, unless they are numbers too many or too fractional to be any."""
    if columns.is_numeric(labels):
        values, _, _ = columns.numbers(labels)
        distinct = np.unique(values)
        if len(distinct) > NAMED or np.any(distinct != np.floor(distinct)):
            return _some_numbers("outcome", labels, None, detail)
    return fitting.categorical("outcome", labels)


def _label_counts(
    outputs: Outputs, scores: NumericSummary | None, outcomes: Summary | None
) -> dict[str, dict[str, Counts]]:
    if outputs.scores is None or outputs.labels is None or scores is None:
        return {"label_counts": {}}
    if not isinstance(outcomes, CategoricalSummary):
        return {"label_counts": {}}
    named = outcomes.categories
    return {"label_counts": fitting.label_counts(outputs.scores, outputs.labels, scores.bounds, named)}


def _importance(
    given: Mapping[str, float] | Sequence[float] | None, table: Mapping[str, Column]
) -> Mapping[str, float]:
    if given is None:
        return {}
    if isinstance(given, Mapping):
        check_known("importance", given, table)
        pairs: Iterator[tuple[str, float]] = iter(given.items())
    else:
        if len(given) != len(table):
            raise BaselineError(f"importance= has {len(given)} numbers, the data has {len(table)} columns")
        pairs = zip(table, given, strict=True)
    important = {name: float(value) for name, value in pairs}
    for name, value in important.items():
        if not np.isfinite(value):
            raise BaselineError(f"importance= of {name!r} must be a finite number, not {value}")
    return important


def _range(name: str, given: tuple[float, float]) -> tuple[float, float]:
    low, high = map(float, given)
    if not (np.isfinite([low, high]).all() and low <= high):
        raise BaselineError(f"allowed= of {name!r} must be (lowest, highest), both finite, not {given!r}")
    return low, high


def _names(option: str, given: Iterable[str], table: Mapping[str, Column]) -> frozenset[str]:
    if isinstance(given, str):
        raise BaselineError(f"{option}= takes a list of names; write {option}=[{given!r}]")
    names = frozenset(map(str, given))
    check_known(option, names, table)
    return names


def check_known(option: str, names: Iterable[str], table: Mapping[str, Column]) -> None:
    """Raise `BaselineError` when the option names what is no column."""
    unknown = sorted(set(names) - set(table))
    if unknown:
        shown = ", ".join(list(table)[:20]) + (", …" if len(table) > 20 else "")
        raise BaselineError(f"{option}= names {unknown[0]!r}, which is no column; the columns are {shown}")


def _no_twins(names: Sequence[str]) -> None:
    twins = sorted(name for name, times in Counter(names).items() if times > 1)
    if twins:
        raise BaselineError(f"two columns have the name {twins[0]!r}; give every column its own")
