"""The version of otel-ml."""

__version__ = "0.1.0"
