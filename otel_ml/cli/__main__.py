"""`python -m otel_ml.cli`, the same as `otel-ml`."""

from . import main

main()
