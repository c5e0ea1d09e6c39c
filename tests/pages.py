"""What a how-to page that shows an example promises: its code stands in the example, and the example prints this."""

from __future__ import annotations

import textwrap
from pathlib import Path

from contract.test_docs import blocks, says

ROOT = Path(__file__).parents[1]


def assert_shows(page: str, example: str, printed: str) -> None:
    """The blocks of `page` that name `example` are lines of it, and of what it `printed`."""
    code = (ROOT / "examples" / example).read_text(encoding="utf-8")
    shown = {block.info: block.text for block in blocks(ROOT / "docs" / "howto" / page)}
    assert shown.keys() >= {f"python examples/{example}", f"text examples/{example}"}
    for block in blocks(ROOT / "docs" / "howto" / page):
        if block.info == f"python examples/{example}":
            assert textwrap.indent(block.text, "    ") in code
        if block.info == f"text examples/{example}":
            assert says(block.text, printed), printed
