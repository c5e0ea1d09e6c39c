"""What tests of the instrumentation share: data, small models, and a look at the spans they made."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.linear_model import LogisticRegression

X = np.random.default_rng(0).normal(size=(80, 3))
y = (X[:, 0] + X[:, 1] > 0).astype(int)


class Spans:
    """The spans that were made since the last look."""

    def __init__(self, exporter: InMemorySpanExporter) -> None:
        self._exporter = exporter

    def take(self) -> list[Any]:
        spans = list(self._exporter.get_finished_spans())
        self._exporter.clear()
        return spans

    def names(self) -> list[str]:
        return [span.name for span in self.take()]


def fitted(**parameters: Any) -> LogisticRegression:
    return LogisticRegression(**parameters).fit(X, y)


def run(program: str, *arguments: str) -> str:
    """What a program in a process of its own prints."""
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


class KMeansLike(ClassifierMixin, BaseEstimator):
    """A classifier of a user."""

    def fit(self, X: Any, y: Any) -> KMeansLike:
        self.classes_ = np.unique(y)
        self.predict(X)  # a look at its own work while it fits
        return self

    def predict(self, X: Any) -> Any:
        return np.where(np.asarray(X)[:, 0] > 0, self.classes_[1], self.classes_[0])
