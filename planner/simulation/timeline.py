"""State over time on a regular grid, thinned as the run gets longer; CSV and Chrome trace export."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

COLUMNS: Final = ("time_s", "running", "waiting", "kv_tokens", "preemptions", "hit_tokens", "busy_s")


@dataclass(slots=True)
class Moment:
    """Totals over replicas: requests running and waiting, KV tokens held; counters and busy seconds so far."""

    running: int = 0
    waiting: int = 0
    kv_tokens: float = 0.0
    preemptions: int = 0
    hit_tokens: int = 0
    busy: float = 0.0


class Timeline:
    """Moments at multiples of ``interval`` seconds.

    Replicas report grid points independently; the totals are sums. Once a grid index passes ``points``,
    every other point is dropped and the interval doubles, so memory stays bounded without knowing the horizon.
    An infinite interval records nothing.
    """

    __slots__ = ("interval", "moments", "points")

    def __init__(self, interval: float = 1 / 64, points: int = 512) -> None:
        self.interval = interval
        self.points = points
        self.moments: dict[int, Moment] = {}

    def next_after(self, time: float) -> float:
        """Return the first grid time later than ``time``."""
        return (int(time / self.interval) + 1) * self.interval

    def at(self, time: float) -> Moment | None:
        """Return the moment of a grid time to add to; None if thinning has removed that time."""
        index = round(time / self.interval)
        while index > self.points:
            self._thin()
            index = round(time / self.interval)
        if abs(index * self.interval - time) > 1e-6 * self.interval:
            return None
        moment = self.moments.get(index)
        if moment is None:
            moment = self.moments[index] = Moment()
        return moment

    def _thin(self) -> None:
        self.interval *= 2
        self.moments = {index // 2: moment for index, moment in self.moments.items() if index % 2 == 0}

    def rows(self) -> Iterator[tuple[float, Moment]]:
        """Times (s) and moments, ascending."""
        for index in sorted(self.moments):
            yield index * self.interval, self.moments[index]


def timeline_text(timeline: Timeline, suffix: str) -> str:
    """Write ``.csv``, or the Chrome trace format (chrome://tracing, Perfetto) for ``.json``."""
    if suffix == ".json":
        return json.dumps(chrome_trace(timeline)) + "\n"
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(COLUMNS)
    for time, m in timeline.rows():
        writer.writerow(
            [f"{time:.6f}", m.running, m.waiting, round(m.kv_tokens), m.preemptions, m.hit_tokens, f"{m.busy:.6f}"]
        )
    return stream.getvalue()


def chrome_trace(timeline: Timeline) -> dict[str, object]:
    """Counter events ("ph": "C", times in microseconds) of the Trace Event Format."""
    events: list[dict[str, object]] = []
    for time, m in timeline.rows():
        for name, values in (
            ("requests", {"running": m.running, "waiting": m.waiting}),
            ("KV tokens", {"held": round(m.kv_tokens)}),
            ("preemptions", {"total": m.preemptions}),
        ):
            events.append({"name": name, "ph": "C", "ts": round(time * 1e6), "pid": 1, "args": values})
    return {"traceEvents": events, "displayTimeUnit": "ms"}
