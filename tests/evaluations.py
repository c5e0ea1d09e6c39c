"""What the engine may say, to be changed with `dataclasses.replace`."""

from __future__ import annotations

from pointbatches import T0, S

from otel_ml_collector.evaluation import Evaluation, ModelKey, Target, TargetEvaluation

AGE = TargetEvaluation(
    target=Target("feature", "age"),
    rows=1000,
    evaluated=True,
    status=2,
    reason="psi",
    detail="PSI excess 0.31 ≥ 0.25",
    statistics={"psi": 0.33, "psi.excess": 0.31, "ks": 0.2, "cusum": 3.0},
    p_value=1e-9,
    state_shares={"ok": 0.9, "missing": 0.1},
    state_effects={"missing": 0.64},
    bins=None,
)
EVALUATION = Evaluation(
    model=ModelKey("shop", "churn-api", "prod", "churn", "3"),
    window_name="",
    window_start=T0,
    window_end=T0 + 3600 * S,
    rows=1000,
    final=True,
    baseline_id="abc",
    baseline_created=T0 - 5000 * S,
    baseline_rows=5000,
    targets=(AGE,),
)
