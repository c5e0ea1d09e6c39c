"""The running tally of one model: its features, scores, labels, rows and durations, reduced to counts."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from opentelemetry.sdk.metrics import Exemplar
from opentelemetry.trace import SpanContext

from . import _guard, semconv, uncertainty
from .columns import Table, categories, category
from .feature import Categorical, Feature, Numeric, Undecided, kind_of
from .kernel import Kernel, blocks
from .model import MAX_FEATURES, Model
from .prediction import Outcome, uncertainties
from .projection import Projected
from .rows import names_of
from .segment import MAX_FEATURES as MAX_SEGMENTED
from .semconv import OTHER
from .sketches import Buckets, Count, Exponential, Ledger
from .summary import CategoricalSummary, NumericSummary, Summary

MAX_LABELS = 20
MAX_ERROR_TYPES = 20
MAX_LAYOUTS = 16
"""Widths of input whose features are remembered."""
MAX_EXTRA = 20
"""Most unknown columns that are named: a dict with ever new keys must not make ever new series."""
_ABSENT = np.array([None], dtype=object)
"""A column that is declared and not given: it has no kind yet."""
_UNIFORM = np.linspace(0.0, 1.0, 21)[1:-1]
_DURATIONS = np.array(semconv.DURATION_BOUNDS)


Example = tuple[SpanContext, int, int, "str | None"]
"""The span of a call, when it began by `time.perf_counter_ns`, its nanoseconds, and the type of its error."""


class Tally:
    """Counts of one model, or of the rows in one of its segments. Not thread-safe: the producer's lock is held
    around every call."""

    def __init__(self, model: Model, ledger: Ledger, segment: str | None = None) -> None:
        self._model = model
        self._ledger = ledger
        self._attributes = self._cut = model.attributes()
        """What all series carry, and what those that are counted by segment carry."""
        self._segmented: set[str] = set()
        self._listed: frozenset[str] | None = frozenset()
        if segment is not None and model.segment is not None:
            self._cut = {**self._attributes, model.segment.attribute: segment}
            self._listed = model.segment.listed(model.baseline)
        self._positional: dict[int, list[tuple[int, Feature]]] = {}
        self._kernels: dict[int, Kernel] = {}
        self._scores: dict[str, Buckets | Exponential] = {}
        self._uncertainty: Buckets | None = None
        self._labels: dict[str, Count] = {}
        self._columns = frozenset(model.baseline.columns if model.baseline is not None else ())
        self._extra: set[str] = set()
        self._error_types: set[str] = set()
        self._projected = Projected(model, ledger)
        self._features = {name: self._feature(name, summary) for name, summary in model.features().items()}
        if model.baseline is not None and len(self._features) < len(model.baseline.features):
            self._say(
                "limit",
                f"the baseline has more than {MAX_FEATURES} features; the most important are recorded",
            )

    # --- features

    def _feature(self, name: str, summary: Summary) -> Feature:
        assert self._model.baseline is not None
        attributes = {**self._of_feature(name), semconv.BASELINE_ID: self._model.baseline.id}
        if isinstance(summary, NumericSummary):
            return Numeric(name, attributes, self._ledger, summary)
        if isinstance(summary, CategoricalSummary):
            return Categorical(name, attributes, self._ledger, summary)
        return Feature(name, attributes, self._ledger)

    def _of_feature(self, name: str) -> dict[str, str]:
        """The attributes of the series of a feature, which is counted by segment or not."""
        if self._listed is None and len(self._segmented) < MAX_SEGMENTED:
            self._segmented.add(name)
        by_segment = name in (self._segmented if self._listed is None else self._listed)
        return self._cut if by_segment else self._attributes

    def add_matrices(self, parts: Sequence[NDArray[np.generic]]) -> None:
        """Count rows of shape (n, d), of one d, whose columns have no names."""
        rows, width = sum(map(len, parts)), parts[0].shape[1]
        features = self._by_position(width)
        if features is None:
            self._misfit(width, rows)
            return
        self._count_beyond(width, len(features), rows)
        self._add_bounded(parts, rows, width, features)
        free = {
            place: feature for place, feature in features if isinstance(feature, Numeric) and feature.free
        }
        for block, _ in blocks(parts, list(free), np.dtype(np.float64)):
            block.sort(axis=1)
            for feature, column in zip(free.values(), block, strict=True):
                feature.add_sorted(column)
        for place, other in features:
            if not isinstance(other, Numeric):
                for part in parts:
                    other.add(part[:, place])  # as it came: 0.1 in float32 is the category 0.1
        with _guard.guard("projections"):
            self._projected.add_matrices(parts)

    def _add_bounded(
        self,
        parts: Sequence[NDArray[np.generic]],
        rows: int,
        width: int,
        features: list[tuple[int, Feature]],
    ) -> None:
        bounded = {
            place: feature for place, feature in features if isinstance(feature, Numeric) and not feature.free
        }
        kernel = self._kernels.get(width)
        if kernel is None:
            kernel = Kernel({place: feature.probes for place, feature in bounded.items()})
            if width in self._positional:
                self._kernels[width] = kernel
        for place, below in kernel.below(parts).items():
            bounded[place].add_below(below, rows)

    def add_table(self, table: Table) -> None:
        """Count rows of a table, its columns matched by name when it has names, else by position."""
        names = table.names
        if names is None:
            features = self._by_position(len(table.columns), table.columns)
            if features is None:
                self._misfit(len(table.columns), table.rows)
                return
        else:
            features = self._by_names(names, table)
        self._count_beyond(len(table.columns), len(features), table.rows)
        for place, feature in features:
            with _guard.guard("features"):  # a value that cannot be read costs its own column only
                mismatched = feature.add(table.columns[place])
                if mismatched:
                    self._violation(feature.name, "type", mismatched)
        with _guard.guard("projections"):
            self._projected.add_table(table)

    def _by_position(
        self, width: int, columns: Sequence[NDArray[np.generic]] = ()
    ) -> list[tuple[int, Feature]] | None:
        """Places and features of the columns that are recorded; None when columns cannot be told apart."""
        if width in self._positional:
            return self._positional[width]
        names = names_of(self._model, width)
        if names is None:
            return None
        by_name = [self._by_name(name, columns, place) for place, name in enumerate(names)]
        features = [(place, feature) for place, feature in enumerate(by_name) if feature is not None]
        decided = all(feature.kind != Undecided.kind for _, feature in features)
        if decided and len(self._positional) < MAX_LAYOUTS:
            self._positional[width] = features
        return features

    def _by_names(self, names: Sequence[str], table: Table) -> list[tuple[int, Feature]]:
        """Places and features of named columns, of equal names the first; features that are absent are counted."""
        features: list[tuple[int, Feature]] = []
        seen: set[str] = set()
        for place, name in enumerate(names):
            feature = None if name in seen else self._by_name(name, table.columns, place, table.rows)
            if feature is not None:
                features.append((place, feature))
            seen.add(name)
        for name in (self._model.feature_names or ()) if self._model.baseline is None else ():
            if name not in seen:
                self._by_name(name, (_ABSENT,), 0)
        # a model of which nothing is known has no columns that could be absent
        expected = self._features if self._model.width is not None else {}
        for name, feature in expected.items():
            if name not in seen:
                feature.add_states(missing=table.rows)
                self._violation(name, "missing", table.rows)
        return features

    def _by_name(
        self, name: str, columns: Sequence[NDArray[np.generic]], place: int, rows: int = 0
    ) -> Feature | None:
        feature = self._features.get(name)
        if feature is not None and feature.kind != Undecided.kind:
            return feature
        baseline = self._model.baseline
        if baseline is not None:
            if name not in self._columns:
                self._unknown(name, rows)
            return None
        if feature is None and len(self._features) >= MAX_FEATURES:
            self._say(
                "limit", f"the input has more than {MAX_FEATURES} features; the first ones are recorded"
            )
            return None
        kind = kind_of(columns[place] if columns else None)
        self._features[name] = kind(category(name), self._of_feature(name), self._ledger, None)
        return self._features[name]

    def _unknown(self, name: str, rows: int) -> None:
        """A column that the baseline does not have; of those beyond the limit each counts as `__other__`."""
        if name not in self._extra and len(self._extra) >= MAX_EXTRA:
            self._violation(OTHER, "extra", rows)
        else:
            self._extra.add(name)
            self._violation(category(name), "extra", rows)

    def _count_beyond(self, columns: int, recorded: int, rows: int) -> None:
        """Rows some of whose features are beyond the limit."""
        baseline = self._model.baseline
        if baseline is not None:
            beyond = len(self._features) < len(baseline.features)
        else:
            beyond = recorded < columns and len(self._features) >= MAX_FEATURES
        if beyond:
            _guard.drop("feature_limit", rows)

    def _violation(self, name: str, reason: str, amount: int) -> None:
        attributes = {**self._attributes, semconv.REASON: reason, semconv.FEATURE_NAME: name}
        self._ledger.count(semconv.SCHEMA_VIOLATIONS, attributes, amount)
        self._say(f"{reason}:{name}", _VIOLATIONS["others" if name == OTHER else reason], name)

    def _misfit(self, width: int, rows: int) -> None:
        """Unnamed columns of a number that fits nothing that is known."""
        attributes = {**self._attributes, semconv.REASON: "width"}
        self._ledger.count(semconv.SCHEMA_VIOLATIONS, attributes, rows)
        _guard.drop("input_mismatch", rows)
        expected = self._model.width or 0
        self._say(
            "width",
            "the input has %d columns, expected are %d; its features are not recorded. Give it the columns of the "
            "baseline, in that order, or make a new baseline",
            width,
            expected,
        )

    def _say(self, key: str, message: str, *arguments: object) -> None:
        model = self._model
        _guard.say_once(
            f"tally:{model.name}:{model.version}:{key}", f"model %s version %s: {message}", model.name, model.version,
            *arguments,
        )  # fmt: skip

    # --- outcomes

    def add_outcome(self, outcome: Outcome) -> None:
        """Count scores, labels and uncertainty."""
        if outcome.scores is not None:
            self._add_scores(outcome.scores, outcome.score_type)
        if outcome.labels is not None:
            for label, amount in categories(outcome.labels)[0].items():
                self._label(label).add(amount)
        unsure = uncertainties(outcome, self._model)
        if unsure is not None:
            known = np.isfinite(unsure)
            self._uncertainties().add(unsure if known.all() else unsure[known])

    def _add_scores(self, scores: NDArray[np.float64], kind: str) -> None:
        finite = np.isfinite(scores)
        regular = scores if finite.all() else scores[finite]
        self._score(kind).add(regular)
        if len(regular) < len(scores):
            _guard.drop("non_finite_score", len(scores) - len(regular))

    def _score(self, kind: str) -> Buckets | Exponential:
        if kind not in self._scores:
            attributes = {**self._cut, semconv.SCORE_TYPE: kind}
            baseline = self._model.baseline
            empty: Buckets | Exponential
            if baseline is not None and baseline.scores is not None and baseline.score_type == kind:
                attributes[semconv.BASELINE_ID] = baseline.id
                empty = Buckets(baseline.scores.bounds, with_sum=kind == "probability")
            elif kind == "probability":
                empty = Buckets(_UNIFORM, with_sum=True)
            else:
                empty = Exponential()
            self._scores[kind] = self._ledger.get(semconv.PREDICTION_SCORES, attributes, empty).sketch
        return self._scores[kind]

    def _uncertainties(self) -> Buckets:
        if self._uncertainty is None:
            attributes = {**self._cut, semconv.UNCERTAINTY_TYPE: uncertainty.COUNTED}
            baseline, bounds = self._model.baseline, _UNIFORM
            if baseline is not None and baseline.uncertainty is not None:
                attributes[semconv.BASELINE_ID] = baseline.id
                bounds = baseline.uncertainty.bounds
            empty = Buckets(bounds, with_sum=True)
            self._uncertainty = self._ledger.get(semconv.PREDICTION_UNCERTAINTIES, attributes, empty).sketch
        return self._uncertainty

    def _label(self, label: str) -> Count:
        if label not in self._labels and len(self._labels) >= MAX_LABELS:
            label = OTHER
            self._say("labels", f"more than {MAX_LABELS} different labels; the others count as {OTHER}")
        if label not in self._labels:
            attributes = {**self._cut, semconv.PREDICTION_LABEL: label}
            baseline = self._model.baseline
            if baseline is not None and baseline.predictions is not None:
                attributes[semconv.BASELINE_ID] = baseline.id
            self._labels[label] = self._ledger.get(semconv.PREDICTIONS, attributes, Count()).sketch
        return self._labels[label]

    # --- calls

    def add_calls(self, operation: str, rows: int, durations: Sequence[int]) -> None:
        """Count `rows` and the durations, in nanoseconds, of calls that succeeded."""
        attributes = {**self._attributes, semconv.OPERATION_NAME: operation}
        self._durations(attributes).add(np.asarray(durations, dtype=np.float64) * 1e-9)
        self._ledger.count(
            semconv.INFERENCE_ROWS, attributes, rows
        )  # last: rows that are counted are not lost

    def add_failures(self, operation: str, failures: Sequence[tuple[int, str]]) -> None:
        """Count calls that raised: (duration in nanoseconds, type of the error)."""
        durations: dict[str, list[int]] = {}
        for duration, error_type in failures:
            if error_type not in self._error_types and len(self._error_types) >= MAX_ERROR_TYPES:
                error_type = OTHER
                self._say("errors", f"more than {MAX_ERROR_TYPES} error types; the others count as {OTHER}")
            self._error_types.add(error_type)
            durations.setdefault(error_type, []).append(duration)
        for error_type, took in durations.items():
            attributes = {
                **self._attributes, semconv.OPERATION_NAME: operation, semconv.ERROR_TYPE: error_type,
            }  # fmt: skip
            self._durations(attributes).add(np.array(took, dtype=np.float64) * 1e-9)

    def add_examples(self, operation: str, examples: Sequence[Example]) -> None:
        """Keep the spans of some of the calls that were counted as exemplars."""
        now = time.time_ns() - time.perf_counter_ns()
        for span, begun, duration, error_type in examples:
            attributes = {**self._attributes, semconv.OPERATION_NAME: operation}
            if error_type is not None:
                attributes[semconv.ERROR_TYPE] = error_type if error_type in self._error_types else OTHER
            end, took = now + begun + duration, duration * 1e-9
            self._durations(attributes).show(Exemplar({}, took, end, span.span_id, span.trace_id))

    def add_decisions(self, decisions: Sequence[Mapping[tuple[str, bool], int]]) -> None:
        """Count what samplers decided: rows by (reason, whether kept)."""
        total: Counter[tuple[str, bool]] = Counter()
        kinds = {id(rows): rows for rows in decisions}  # calls of one row share a few
        for kind, times in Counter(map(id, decisions)).items():
            for key, number in kinds[kind].items():
                total[key] += number * times
        for (reason, kept), number in total.items():
            attributes = {
                **self._attributes, semconv.SAMPLING_REASON: reason, semconv.SAMPLING_KEPT: category(kept),
            }  # fmt: skip
            self._ledger.count(semconv.SAMPLING_DECISIONS, attributes, number)

    def _durations(self, attributes: dict[str, str]) -> Buckets:
        empty = Buckets(_DURATIONS, with_sum=True)
        return self._ledger.get(semconv.INFERENCE_DURATION, attributes, empty).sketch


_VIOLATIONS = {
    "missing": "the feature %r is not in the input; its rows count as missing",
    "extra": "the input's column %r is not in the baseline; it is not recorded (a baseline can name it in exclude=)",
    "others": f"more than {MAX_EXTRA} of the input's columns are not in the baseline; the others count as %r",
    "type": "feature %r is a number in the baseline; values that are none count as type_mismatch",
}
