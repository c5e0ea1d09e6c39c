"""The same counts for each region: a drift in one region is not averaged away by the others.

Run it:

    python examples/per_segment.py

A model serves two regions in which customers differ, and a third that nobody listed. It prints, for each region, how
many rows there were, the share of scores above one half and the median bucket of the income, all read from the metrics
that would have gone to a backend.
"""

from collections import defaultdict

import numpy as np
from opentelemetry import metrics
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

import otel_ml


def draw(rows: int, seed: int) -> dict[str, np.ndarray]:
    """Customers of three regions; those of "us" earn more."""
    random = np.random.default_rng(seed)
    region = random.choice(["eu", "us", "asia"], rows, p=[0.6, 0.3, 0.1])
    income = random.lognormal(3.5, 0.5, rows) * np.where(region == "us", 1.6, 1.0)
    return {"age": random.integers(18, 80, rows), "income": income, "region": region}


def chance(X: dict[str, np.ndarray]) -> np.ndarray:
    return 1 / (1 + np.exp(0.05 * (X["age"] - 60) + 0.02 * (X["income"] - 30)))


trained = draw(5000, seed=0)
baseline = otel_ml.Baseline.fit(trained, model="churn", version="3", scores=chance(trained))


@otel_ml.observe(
    model="churn", version="3", baseline=baseline, spans="off",
    segment=otel_ml.Segment("region", values=("eu", "us"), features=("age", "income")),
)  # fmt: skip
def predict(X: dict[str, np.ndarray]) -> np.ndarray:
    return chance(X)


def main() -> None:
    reader = InMemoryMetricReader()
    metrics.set_meter_provider(MeterProvider([reader]))
    predict(draw(10_000, seed=1))

    scores: dict[str, list[float]] = defaultdict(lambda: [0, 0])
    incomes: dict[str, tuple[float, ...]] = {}
    data = reader.get_metrics_data()
    for metric in (m for r in data.resource_metrics for s in r.scope_metrics for m in s.metrics):
        for point in metric.data.data_points:
            region = point.attributes.get("ml.segment.region")
            if metric.name == "ml.prediction.score":
                above = sum(
                    count
                    for count, low in zip(point.bucket_counts[1:], point.explicit_bounds, strict=True)
                    if low >= 0.5
                )
                scores[region] = [point.count, above / point.count]
            elif metric.name == "ml.feature.value" and point.attributes["ml.feature.name"] == "income":
                middle = int(np.searchsorted(np.cumsum(point.bucket_counts), point.count / 2))
                incomes[region] = tuple(point.explicit_bounds[max(middle - 1, 0) : middle + 1])
    for region, (rows, share) in sorted(scores.items()):
        low, high = incomes[region]
        print(f"{region:10}{rows:6} rows  {share:5.1%} above one half  median income {low:.1f} to {high:.1f}")


if __name__ == "__main__":
    main()
