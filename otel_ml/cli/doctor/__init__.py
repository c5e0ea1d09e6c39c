"""`otel-ml doctor`: what is recorded here, what is not and why, and what to do about it."""
