"""A service with a segment and one without, through a real collector: the same rows give the same numbers."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from integration.collector import Collector
from integration.sink import Sink
from integration.test_examples import COLLECTOR, environment, points

PROGRAM = """
import json
import numpy as np, otel_ml
random = np.random.default_rng(0)

def draw(rows, shift):
    region = random.choice(["eu", "us", "asia"], rows)
    age = random.normal(40, 10, rows) + shift * (region == "us")
    age[::50] = np.nan
    return {"age": age, "income": random.lognormal(3, 1, rows), "region": region}

trained = draw(5000, 0)
baseline = otel_ml.Baseline.fit(trained, model="churn", version="3", scores=random.random(5000), projections=False)
otel_ml.configure(service_name="churn-api")
served = draw(3000, 25)
for name, segment in (("plain", None), ("cut", otel_ml.Segment("region", values=("eu", "us"), features=("age",)))):
    predict = otel_ml.observe(model=name, version="3", baseline=baseline, segment=segment, spans="off")(
        lambda rows: np.linspace(0, 1, len(rows["age"]))
    )
    for at in [0, 1, 2, 500]:
        predict({key: column[at:{0: 1, 1: 2, 2: 500, 500: 3000}[at]] for key, column in served.items()})
regions = [name if name in ("eu", "us") else "__other__" for name in served["region"].tolist()]
print(json.dumps({name: regions.count(name) for name in sorted(set(regions))}))
"""

COMPARED = ("ml.drift.window.rows", "ml.drift.status", "ml.drift.psi", "ml.drift.ks", "ml.drift.state.share")


def numbers(requests: Any, model: str) -> dict[Any, float]:
    """The latest value of what the collector says of a model, by metric, target, state and segment."""
    return {
        (name, a.get("ml.feature.name", a["ml.drift.target"]), a.get("ml.feature.state"), a.get("ml.segment.region")):
        point.as_double
        for name in COMPARED for a, point in points(requests, name) if a["ml.model.name"] == model
    }  # fmt: skip


def test_the_whole_is_judged_alike_and_a_segment_on_its_own(tmp_path: Path) -> None:
    """Rows, statistics and verdicts over all rows are those of the service without a segment; the parts add up."""
    with Sink(tmp_path / "sink") as sink, Collector(tmp_path, COLLECTOR % sink.grpc_endpoint) as collector:
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=120, check=False,
            env=environment(f"http://127.0.0.1:{collector.ports['http']}", OTEL_TRACES_EXPORTER="none"),
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (0, "")
        arrived = sink.wait_for(
            lambda requests: all(evaluated(requests, model) for model in ("plain", "cut"))
        )
    plain, cut = numbers(arrived, "plain"), numbers(arrived, "cut")
    assert {key: value for key, value in cut.items() if key[-1] is None} == plain
    assert plain["ml.drift.window.rows", "age", None, None] == 3000
    expected = json.loads(done.stdout)
    for target in ("age", "score"):
        found = {key[-1]: rows for key, rows in cut.items() if key[:2] == ("ml.drift.window.rows", target)}
        assert found == {None: 3000, **expected}
    assert {key[-1] for key in cut if key[1] == "income"} == {None}


def evaluated(requests: Any, model: str) -> bool:
    """Whether all 3000 rows of the model are in a window that was judged."""
    found = numbers(requests, model)
    rows = {value for (name, *_, segment), value in found.items() if name == COMPARED[0] and segment is None}
    return rows == {3000.0} and any(name == "ml.drift.status" for name, *_ in found)
