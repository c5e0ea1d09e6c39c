"""`python -m otel_ml_collector`."""

import sys

from .cli import main

sys.exit(main())
