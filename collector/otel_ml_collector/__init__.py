"""The drift collector of otel-ml: OTLP metrics of models in, drift gauges out.

The heart is pure: `drift.compare` turns two sides of counts into numbers, `verdict.judge` turns the numbers
of all targets of a model into statuses with reasons.
"""
