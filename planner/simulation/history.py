"""Output lengths that a rank has seen: what a forecasting scheduler knows about the future."""

from __future__ import annotations

from bisect import insort
from collections import deque


class OutputHistory:
    """The last ``window`` finished output lengths, sorted; before the first one, a cautious guess.

    Parameters
    ----------
    window : lengths that are remembered.
    longest : guess while nothing has finished (tokens).
    """

    __slots__ = ("_order", "_window", "lengths", "longest")

    def __init__(self, window: int = 1000, longest: int = 1024) -> None:
        self.lengths: list[int] = []
        self.longest = longest
        self._order: deque[int] = deque()
        self._window = window

    def add(self, length: int) -> None:
        """Remember a finished output, forget the oldest beyond the window."""
        insort(self.lengths, length)
        self._order.append(length)
        if len(self._order) > self._window:
            self.lengths.remove(self._order.popleft())
