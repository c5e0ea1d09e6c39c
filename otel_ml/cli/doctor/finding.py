"""What doctor found: a state of things, why it is so and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing worth telling."""

    what: str
    why: str
    todo: str
    broken: bool = True
    """False for what works and could be better."""


def amount(number: int, thing: str) -> str:
    """`1 row`, `2 rows`."""
    return f"{number:,} {thing}{'s' * (number != 1)}"
