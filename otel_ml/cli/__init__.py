"""The command `otel-ml`."""

from __future__ import annotations

import sys

from ..errors import MissingDependency


def main() -> None:
    """Entry point of the `otel-ml` command."""
    try:
        from .app import app
    except ModuleNotFoundError as error:
        if error.name not in ("typer", "rich"):
            raise
        missing = MissingDependency(
            f"the otel-ml command needs {error.name}; install it with: pip install 'otel-ml[cli]'"
        )
        sys.exit(str(missing))
    app()
