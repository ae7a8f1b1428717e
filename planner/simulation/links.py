"""Links between two pools: caches leave by the NICs of the rank that computed them, and come in by those of another."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Transfer:
    """One cache on its way: seconds that it keeps the links of its sender (``egress``) and of its receiver
    (``ingress``) busy, seconds of its ``prefill``, of which it can use all but the last of ``pieces``, and pipeline
    stages ``behind`` the first one, each as long as that."""

    egress: float = 0.0
    ingress: float = 0.0
    prefill: float = 0.0
    pieces: float = 1.0
    behind: float = 0.0

    def seconds(self, waited: float, stage: float = 0.0) -> float:
        """Seconds from the end of the first stage to the last byte, where the links were busy for ``waited`` before and
        the last iteration took ``stage`` there: the closed form of serving/transfer.py."""
        n, sending = self.pieces, max(self.egress, self.ingress) + waited
        return self.behind * stage + max(sending / n, sending - self.prefill * (n - 1.0) / n)


class Links:
    """First come, first served: every link carries one cache at a time; receivers take turns.

    The two links of a cache queue apart, and it waits for the later one: while one of them is busy with others, the
    other serves whoever is next, as transfers that share links do.
    """

    def __init__(self, senders: int, receivers: int) -> None:
        self._sending = [0.0] * senders
        self._receiving = [0.0] * receivers
        self._next = 0

    def wait(self, now: float, sender: int, transfer: Transfer) -> float:
        """Seconds until both links of a cache have come to it."""
        receiver, self._next = self._next, (self._next + 1) % len(self._receiving)
        leaves, enters = max(now, self._sending[sender]), max(now, self._receiving[receiver])
        self._sending[sender], self._receiving[receiver] = leaves + transfer.egress, enters + transfer.ingress
        return max(leaves, enters) - now
