"""The saved artefact that drift is measured against: made at training time, shipped beside the model."""

from __future__ import annotations

import os
import secrets
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from . import baseline_file, fitting, training
from . import batches as batching
from .batches import SAMPLE_ROWS, Batches, Output, Progress
from .errors import BaselineError
from .summary import (
    CategoricalSummary,
    NumericSummary,
    OpaqueSummary,
    Projection,
    Summary,
    add,
)
from .training import Outputs

__all__ = ["Baseline", "CategoricalSummary", "NumericSummary", "OpaqueSummary", "Projection", "Summary"]

ROWS_FOR_A_VERDICT = 500
"""Below this many rows sampling noise of the baseline itself looks like drift."""
LARGEST_KS_ERROR = 0.075

_LARGEST_FILE = 256 * 2**20
LabelCounts = Mapping[str, NDArray[np.int64]]
_OUTPUTS = ("scores", "predictions", "outcomes", "uncertainty")


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Baseline:
    """What a model saw in training: one summary a feature, of its scores, predictions and labels.

    Make one with `Baseline.fit`, keep it with `save`. Two baselines are equal when their content is.
    """

    schema: ClassVar[int] = baseline_file.SCHEMA
    model: str
    version: str
    created_at: datetime
    """Aware, UTC."""
    rows: int
    columns: tuple[str, ...]
    """Every column of the input in order, summarised or not: inputs without names go by position."""
    features: Mapping[str, Summary]
    """The summarised columns, in order."""
    scores: NumericSummary | None = None
    score_type: str | None = None
    """One of `semconv.SCORE_TYPES`."""
    predictions: CategoricalSummary | None = None
    outcomes: Summary | None = None
    """The labels, the ground truth."""
    uncertainty: NumericSummary | None = None
    label_counts: LabelCounts = field(default_factory=dict)
    """Rows by label in each bucket of `scores`."""
    projections: tuple[Projection, ...] = ()
    performance: Mapping[str, float] = field(default_factory=dict)
    owner: str | None = None
    description: str | None = None
    intended_use: str | None = None
    id: str = field(init=False)
    """16 hexadecimal digits of a hash over everything else."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "id", baseline_file.content_hash(baseline_file.encode(self)))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Baseline) and self.id == other.id

    def __hash__(self) -> int:
        return hash(self.id)

    def __repr__(self) -> str:
        size = f"rows={self.rows}, features={len(self.features)}"
        return f"Baseline({self.model!r}, {self.version!r}, {size}, id={self.id})"

    @classmethod
    def fit(
        cls,
        X: object,
        *,
        model: str,
        version: str,
        scores: object = None,
        predictions: object = None,
        labels: object = None,
        uncertainty: object = None,
        features: Sequence[str] | None = None,
        categorical: Iterable[str] = (),
        exclude: Iterable[str] = (),
        allowed: Mapping[str, tuple[float, float]] | None = None,
        importance: Mapping[str, float] | Sequence[float] | None = None,
        threshold: float | None = None,
        score_type: str | None = None,
        resolution: Literal["standard", "fine"] = "standard",
        quantiles: bool = True,
        projections: bool = True,
        owner: str | None = None,
        description: str | None = None,
        intended_use: str | None = None,
        performance: Mapping[str, float] | None = None,
        created_at: datetime | None = None,
    ) -> Baseline:
        """The baseline of training data `X` (n rows) and what the model made of it.

        - `X`: DataFrame, dict of columns, array or list of rows. `features` names the columns of an array, or
          picks columns of a frame.
        - `scores`: one number a row, or the rows of `predict_proba`: of two classes the probability of the second, of
          more the largest, and then `uncertainty` follows from them too. `predictions`, `labels`: one label a row.
        - `uncertainty`: one number a row, 1 less the margin between the two largest probabilities: what services count.
        - `categorical`: columns of numbers that mean categories. `exclude`: columns that get no summary.
        - `allowed`: range by feature, (lowest, highest), beyond which a value is out of range.
        - `importance`: by feature, or one number a column.
        - `threshold`: the score at which decisions are made; it becomes a bound of the scores.
        - `score_type`: probability, margin, anomaly or value; by default probability when all are in [0, 1],
          else value.
        - `resolution`: `fine` has 200 buckets instead of 20 a feature. `quantiles=False` leaves single
          values, but for the smallest and the largest, out of the file. `projections=False` does without joint
          drift.
        - `owner`, `description`, `intended_use`, `performance` (number by metric): for the model card.

        Raises `BaselineError` when something does not fit together. Warns below 500 rows: no verdict is given
        on so few.
        """
        options = training.Options.read(
            categorical=categorical,
            exclude=exclude,
            allowed=allowed or {},
            importance=importance,
            threshold=threshold,
            score_type=score_type,
            resolution=resolution,
            quantiles=quantiles,
            projections=projections,
        )
        table = training.table(X, features)
        rows = len(next(iter(table.values())))
        given = Outputs.read(
            rows, scores=scores, predictions=predictions, labels=labels, uncertainty=uncertainty
        )
        baseline = cls(
            model=model,
            version=version,
            created_at=_utc(created_at),
            performance={metric: float(value) for metric, value in (performance or {}).items()},
            owner=owner,
            description=description,
            intended_use=intended_use,
            **training.fields(table, given, options),
        )
        baseline._warn()
        return baseline

    @classmethod
    def fit_batches(
        cls,
        batches: Batches,
        *,
        model: str,
        version: str,
        scores: Output | None = None,
        predictions: Output | None = None,
        labels: Output | None = None,
        uncertainty: Output | None = None,
        features: Sequence[str] | None = None,
        categorical: Iterable[str] = (),
        exclude: Iterable[str] = (),
        allowed: Mapping[str, tuple[float, float]] | None = None,
        importance: Mapping[str, float] | Sequence[float] | None = None,
        threshold: float | None = None,
        score_type: str | None = None,
        resolution: Literal["standard", "fine"] = "standard",
        quantiles: bool = True,
        projections: bool = True,
        owner: str | None = None,
        description: str | None = None,
        intended_use: str | None = None,
        performance: Mapping[str, float] | None = None,
        created_at: datetime | None = None,
        sample_rows: int = SAMPLE_ROWS,
        progress: Callable[[Progress], None] | None = None,
    ) -> Baseline:
        """`fit` for data larger than memory, which comes as batches of rows.

        - `batches`: a list or another iterable of tables that can be read twice, such as a `DataFile`, or a
          function that gives them from the beginning whenever it is called. Each table as `X` of `fit`.
        - `scores`, `predictions`, `labels`, `uncertainty`: the name of a column, which then is no feature, or a
          function of a batch that gives one value a row, as of `fit`: `lambda X: model.predict_proba(X)`.
        - `sample_rows`: rows of a uniform sample that decides kinds, bounds, quantiles and projections. It is
          what is held in memory, with one batch.
        - `progress`: is called with a `Progress` after each batch.

        The first pass samples; the second counts every row. With no more than `sample_rows` rows the result is
        that of `fit`. An iterator, which can be read only once, gives the baseline of the sample: its `rows` are
        those of the sample. Raises `BaselineError` that names the batch when something does not fit together.
        """
        options = training.Options.read(
            categorical=categorical,
            exclude=exclude,
            allowed=allowed or {},
            importance=importance,
            threshold=threshold,
            score_type=score_type,
            resolution=resolution,
            quantiles=quantiles,
            projections=projections,
        )
        found = batching.fields(
            batches,
            {"scores": scores, "predictions": predictions, "labels": labels, "uncertainty": uncertainty},
            features=features,
            options=options,
            sample_rows=sample_rows,
            progress=progress,
        )
        baseline = cls(
            model=model,
            version=version,
            created_at=_utc(created_at),
            performance={metric: float(value) for metric, value in (performance or {}).items()},
            owner=owner,
            description=description,
            intended_use=intended_use,
            **found,
        )
        baseline._warn()
        return baseline

    def count(
        self,
        X: object,
        *,
        scores: object = None,
        predictions: object = None,
        labels: object = None,
        uncertainty: object = None,
    ) -> Baseline:
        """A baseline of other rows on the bounds and named categories of this one.

        For data spread over machines: fit on a random sample, count every part, `merge` the parts.
        Takes the outputs that this baseline has. Raises `BaselineError` when columns or outputs differ.
        """
        table = training.table(X, self.columns)
        rows = len(next(iter(table.values())))
        given = Outputs.read(
            rows, scores=scores, predictions=predictions, labels=labels, uncertainty=uncertainty
        )
        return replace(
            self,
            rows=rows,
            features={name: fitting.recount(summary, table[name]) for name, summary in self.features.items()},
            projections=fitting.reproject(self.projections, table),
            **training.recounted_outputs(given, {key: getattr(self, key) for key in _OUTPUTS}),
        )

    def merge(self, other: Baseline) -> Baseline:
        """Both counted together: counts add exactly, quantiles are left out, the model card is kept.

        Raises `BaselineError` unless model, version and columns are the same, and `BoundsMismatch` unless the
        bounds are: `count` makes such parts.
        """
        for key in ("model", "version", "columns", "score_type"):
            if getattr(self, key) != getattr(other, key):
                mine, its = getattr(self, key), getattr(other, key)
                raise BaselineError(f"baselines merge only with the same {key}, not {mine!r} and {its!r}")
        return _together(self, other)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the file, atomically: a reader sees the old one or the new one."""
        target = Path(path)
        draft = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
        try:
            with draft.open("x", encoding="utf-8") as file:
                file.write(self.to_json())
                file.flush()
                os.fsync(file.fileno())
            draft.replace(target)
        finally:
            draft.unlink(missing_ok=True)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Baseline:
        """Read a file; `BaselineError` names file, key and the way out when it is not valid."""
        source = os.fspath(path)
        try:
            with open(source, encoding="utf-8") as file:
                text = file.read(_LARGEST_FILE + 1)
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise BaselineError(
                f"baseline {source!r} cannot be read ({reason}); make it with Baseline.fit(…).save(…)"
            ) from error
        if len(text) > _LARGEST_FILE:
            raise BaselineError(
                f"baseline {source!r} is larger than {_LARGEST_FILE >> 20} MiB; this is no baseline"
            )
        return cls.from_json(text, source=source)

    def to_json(self) -> str:
        """The content of the file."""
        return baseline_file.layout({"id": self.id} | baseline_file.encode(self)) + "\n"

    @classmethod
    def from_json(cls, text: str, source: str = "<text>") -> Baseline:
        """The baseline a text holds; `source` names it in errors. The id follows from the content."""
        return cls(**baseline_file.parse(text, source))

    def _warn(self) -> None:
        coarse = [s.name for s in self._numeric() if s.ks_error > LARGEST_KS_ERROR]
        if self.rows < ROWS_FOR_A_VERDICT:
            warnings.warn(
                f"baseline of {self.model!r} has {self.rows} rows; drift verdicts need {ROWS_FOR_A_VERDICT}, "
                "about 5000 make them reliable",
                stacklevel=3,
            )
        elif coarse:
            warnings.warn(
                f"one bucket holds more than {LARGEST_KS_ERROR:.1%} of the rows of {', '.join(coarse)}; "
                'make the baseline with resolution="fine"',
                stacklevel=3,
            )

    def _numeric(self) -> Iterable[NumericSummary]:
        for summary in (*self.features.values(), self.scores, self.uncertainty):
            if isinstance(summary, NumericSummary):
                yield summary


def _utc(given: datetime | None) -> datetime:
    if given is None:
        return datetime.now(timezone.utc)
    if given.tzinfo is None:
        raise BaselineError(
            f"created_at= needs a time zone, {given} has none; give datetime.now(timezone.utc)"
        )
    return given.astimezone(timezone.utc)


def _together(a: Baseline, b: Baseline) -> Baseline:
    if a.features.keys() != b.features.keys():
        raise BaselineError("baselines merge only with the same features; make the parts with count")
    outputs: dict[str, Any] = {key: _add_given(key, getattr(a, key), getattr(b, key)) for key in _OUTPUTS}
    return replace(
        a,
        rows=a.rows + b.rows,
        created_at=max(a.created_at, b.created_at),
        features={name: add(summary, b.features[name]) for name, summary in a.features.items()},
        label_counts=_add_label_counts(a.label_counts, b.label_counts),
        projections=_add_projections(a.projections, b.projections),
        **outputs,
    )


def _add_label_counts(a: LabelCounts, b: LabelCounts) -> LabelCounts:
    """Labels are the same on both sides, because the outcomes are, but for `__other__`."""
    return {
        label: np.sum([counts[label] for counts in (a, b) if label in counts], axis=0) for label in {**a, **b}
    }


def _add_given(key: str, a: Summary | None, b: Summary | None) -> Summary | None:
    if a is None or b is None:
        if a is not b:
            raise BaselineError(f"only one of the two baselines has {key}; make the parts with count")
        return None
    return add(a, b)


def _add_projections(a: Sequence[Projection], b: Sequence[Projection]) -> tuple[Projection, ...]:
    same = len(a) == len(b) and all(map(_same_direction, a, b))
    if not same:
        raise BaselineError("the two baselines have other projections; make the parts with count")
    return tuple(replace(p, summary=p.summary + q.summary) for p, q in zip(a, b, strict=True))


def _same_direction(a: Projection, b: Projection) -> bool:
    return a.features == b.features and all(
        np.array_equal(getattr(a, key), getattr(b, key)) for key in ("centre", "scale", "loadings")
    )
