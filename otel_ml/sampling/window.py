"""How much comes a minute, or a second: what quotas and limits divide by."""

from __future__ import annotations


class Window:
    """The amount in the present window, by its number, and in the last three windows that had any."""

    __slots__ = ("_number", "past", "seen")

    def __init__(self) -> None:
        self._number = 0
        self.seen = 0.0
        """In the present window, with all that was added."""
        self.past: tuple[float, ...] = ()
        """In up to three windows before it, none of them empty."""

    def add(self, amount: float, number: int) -> None:
        """Add an amount in window `number`; a new number closes the window before it."""
        if number != self._number:
            if self.seen:
                self.past = (*self.past[-2:], self.seen)
            self._number, self.seen = number, 0.0
        self.seen += amount
