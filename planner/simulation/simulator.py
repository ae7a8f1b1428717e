"""The event loop: arrivals, ends of spans and KV transfers, in the order of time."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import Final, Protocol

from planner.simulation.histogram import TimeHistogram
from planner.simulation.links import Links
from planner.simulation.mirrors import Mirrors
from planner.simulation.rank import Rank
from planner.simulation.records import Records
from planner.simulation.replica import Replica, Shared
from planner.simulation.request import Request
from planner.simulation.routing import Router
from planner.simulation.series import TIE
from planner.simulation.settings import Deployment, Pool, Routing
from planner.simulation.timeline import Timeline


class Stream(Protocol):
    """Requests to serve: those that come by themselves, and those that follow the end of another one."""

    def arrivals(self) -> Iterator[Request]:
        """Requests in the order of arrival."""
        ...

    def after(self, request: Request, finished: float) -> Request | None:
        """Return what the user sends once ``request`` has ended, or None (closed loops, conversations)."""
        ...


@dataclass(slots=True)
class Run:
    """Everything a simulation observed; ``planner.simulation.metrics.summarize`` makes statistics of it.

    Attributes
    ----------
    submitted, finished : requests that arrived, that got their last token.
    refused : requests longer than the KV memory of a rank: no schedule can serve them.
    last_arrival, end : moment of the last arrival, of the last event (s).
    busy, sequence_seconds, kv_seconds : sums over replicas: busy time, decoding sequences x time, KV tokens x time.
    kv_capacity : KV tokens of all ranks. steps : engine iterations. leaked_blocks : KV blocks that nobody owns at
        the end (0). closed_loop : whether requests followed the end of others.
    """

    records: Records
    token_gaps: TimeHistogram
    timeline: Timeline
    submitted: int = 0
    refused: int = 0
    last_arrival: float = 0.0
    end: float = 0.0
    busy: float = 0.0
    sequence_seconds: float = 0.0
    kv_seconds: float = 0.0
    kv_capacity: int = 0
    replicas: int = 0
    steps: int = 0
    preemptions: int = 0
    interrupted: bool = False
    leaked_blocks: int = 0
    closed_loop: bool = False
    pools: list[Side] = field(default_factory=list, repr=False)

    @property
    def finished(self) -> int:
        """Requests that got their last token."""
        return len(self.records)


class Side:
    """The replicas of one pool with their router."""

    def __init__(self, pool: Pool, index: int, run: Run, exact: bool, details: bool) -> None:
        self.pool = pool
        self.index = index
        count = pool.replicas * pool.attention_dp
        holders: dict[int, int] | None = {} if pool.routing is Routing.PREFIX_AWARE else None
        self.router = Router(pool, count, holders)
        self.ranks = [Rank(pool, number, self.router, holders) for number in range(count)]
        width = pool.attention_dp
        shared = Shared(pool, run.timeline, run.token_gaps, exact, details)
        self.replicas = [Replica(shared, self.ranks[i * width : (i + 1) * width]) for i in range(pool.replicas)]

    def replica_of(self, rank: int) -> int:
        """Return the index of the replica that owns a rank."""
        return rank // self.pool.attention_dp


WAKE, ARRIVE, TRANSFER = 0, 1, 2
PROGRESS_EVERY: Final = 2000


class Simulator:
    """One run of a deployment under a stream.

    Parameters
    ----------
    exact : one iteration at a time, the reference that tests compare with.
    progress : called with (finished, submitted, simulated seconds) now and then; the simulation never prints.
    max_requests : stop taking arrivals after so many; None takes all.
    details : whether to record the state over time, the gaps between tokens and the integrals of load; the latencies
        of requests do not need them, and a run is a third faster without.
    enough : asked after every finished request; the run ends where it says so.
    first_token : told, of every request whose prompt is computed and where it will decode, its number and the least
        TTFT (s) that it can still have; the run ends where it says so.
    """

    def __init__(
        self,
        deployment: Deployment,
        stream: Stream,
        *,
        exact: bool = False,
        progress: Callable[[int, int, float], None] | None = None,
        max_requests: int | None = None,
        details: bool = True,
        enough: Callable[[Records], bool] | None = None,
        first_token: Callable[[int, float], bool] | None = None,
    ) -> None:
        self.deployment = deployment
        self.stream = stream
        self.run_state = Run(Records(), TimeHistogram(), Timeline() if details else Timeline(math.inf))
        pools = [pool for pool in (deployment.prefill, deployment.serve) if pool is not None]
        self.sides = [Side(pool, i, self.run_state, exact, details) for i, pool in enumerate(pools)]
        self.run_state.pools = self.sides
        one_of = deployment.one_of
        self._links = Links(len(self.sides[0].ranks), len(self.sides[-1].ranks) * one_of)
        self._mirrors = Mirrors(one_of, deployment.answers_after_transfer) if one_of > 1 else None
        self._offset, self._look_wait = pools[0].offset, pools[0].look_wait
        # Longer requests cannot run to their last token even with the whole memory of a rank to themselves; a prefill
        # pool holds prompts alone.
        rooms = [side.ranks[0].total_blocks * side.ranks[0].block for side in self.sides]
        self._longest, self._longest_prompt = rooms[-1], rooms[0]
        self._progress = progress
        self._max_requests = max_requests
        self._enough, self._first_token, self._over = enough, first_token, False
        # (time, serial number, what, request, side, replica, version of the wake)
        self._events: list[tuple[float, int, int, Request | None, int, int, int]] = []
        self._serial = 0
        self._now = 0.0

    def run(self) -> Run:
        """Serve the stream to its end, or until Ctrl-C, and return what is known."""
        try:
            self._loop()
        except KeyboardInterrupt:
            self.run_state.interrupted = True
        return self._close()

    # -- loop ----------------------------------------------------------------------------------------------

    def _loop(self) -> None:
        source = iter(self.stream.arrivals())
        upcoming = next(source, None)
        events = self._events
        while (upcoming is not None or events) and not self._over:
            if upcoming is not None and (not events or upcoming.arrival <= events[0][0] + TIE):
                self._arrive(upcoming)
                upcoming = next(source, None) if self._wants_more() else None
                continue
            self._step()

    def _wants_more(self) -> bool:
        return self._max_requests is None or self.run_state.submitted < self._max_requests

    def _step(self) -> None:
        """Handle all events of the next moment: first the ends of spans, then arrivals, then new spans."""
        events = self._events
        limit = events[0][0] + TIE
        awake: list[tuple[int, int, float]] = []
        while events and events[0][0] <= limit:
            time, _, kind, request, side, index, version = heappop(events)
            if request is None:
                if self.sides[side].replicas[index].version == version:
                    awake.append((side, index, time))
            elif kind == ARRIVE:
                self._arrive(request)
            else:
                self._hand_over(request, time)
        awake.sort()
        for side, index, time in awake:
            replica = self.sides[side].replicas[index]
            self._now = time
            if replica.iterations:
                replica.finish(time, self)
        for side, index, time in awake:
            self._drain(time)
            self._start(side, index, time)

    def _drain(self, now: float) -> None:
        """Take arrivals that the ends of spans have caused at this very moment (no think time)."""
        events = self._events
        while events and events[0][0] <= now + TIE and events[0][2] == ARRIVE:
            request = heappop(events)[3]
            if request is not None:
                self._arrive(request)

    def _start(self, side: int, index: int, now: float) -> None:
        replica = self.sides[side].replicas[index]
        end = replica.start(now)
        if end is not None:
            self._wake(end, side, index, replica.version)

    def _wake(self, time: float, side: int, index: int, version: int) -> None:
        self._serial += 1
        heappush(self._events, (time, self._serial, WAKE, None, side, index, version))

    # -- requests --------------------------------------------------------------------------------------------

    def _arrive(self, request: Request) -> None:
        """A request reaches the first pool, or background load the one that it is for."""
        if request.number < 0:
            self._enqueue(request, len(self.sides) - 1 if request.ready else 0, request.arrival)
            return
        run = self.run_state
        run.submitted += 1
        run.last_arrival = max(run.last_arrival, request.arrival)
        if request.prompt + request.output > self._longest or request.prompt > self._longest_prompt:
            run.refused += 1
            self._follow_up(request, request.arrival)
            return
        self._enqueue(request, 0, request.arrival)

    def _enqueue(self, request: Request, side_index: int, now: float) -> None:
        """Route a request to a rank of a pool and wake its replica, or shorten the span that it is in."""
        side = self.sides[side_index]
        number = request.rank = side.router.choose(request)
        rank = side.ranks[number]
        index = side.replica_of(number)
        replica = side.replicas[index]
        if replica.next_sample < now:
            replica.sample_until(now)
        rank.waiting.append(request)
        if not replica.iterations:
            replica.version += 1
            self._wake(now, side_index, index, replica.version)
            return
        request.seen_late = replica.interval > 1 and not replica.prefills
        end = replica.interrupt(rank, now)
        if end is not None:
            self._wake(end, side_index, index, replica.version)

    def prompt_done(self, request: Request, now: float, iteration: float) -> bool:
        """See replica.Listener."""
        if self.deployment.prefill is None or request.output == 1:
            self._tell_first_token(request, now)
            return False
        self._serial += 1
        transfer = self.deployment.transfer(request.prompt)
        waited = self._links.wait(now, request.rank, transfer)
        arrives = now + transfer.seconds(waited, iteration)
        request.waited = waited
        if self.deployment.answers_after_transfer:
            request.first_token = math.inf  # until it starts to decode
        heappush(self._events, (arrives, self._serial, TRANSFER, request, 0, 0, 0))
        return True

    def _hand_over(self, request: Request, now: float) -> None:
        """The KV of a prompt has reached the decode pool: the prefill pool may forget it."""
        side = self.sides[0]
        rank = side.ranks[request.rank]
        was_blocked = rank.blocked
        rank.finish(request)
        side.router.loads[request.rank] -= 1
        index = side.replica_of(request.rank)
        if was_blocked and not side.replicas[index].iterations:
            side.replicas[index].version += 1
            self._wake(now, 0, index, side.replicas[index].version)
        self._tell_first_token(request, now)
        request.ready, request.skew = True, 0.0
        if self._mirrors is not None and not self._mirrors.leads(request, now):
            for other in self._mirrors.late():
                self._record(other, now)
            return
        request.waited -= now
        self._enqueue(request, 1, now)

    def _tell_first_token(self, request: Request, now: float) -> None:
        """The first token of a request comes ``now`` or, where it has still to join the decodes, later."""
        if self._first_token is not None and request.number >= 0:
            seen = min(now, request.first_token)
            if self._first_token(request.number, max(0.0, seen - request.arrival) + self._shown_late(request)):
                self._over = self.run_state.interrupted = True

    def _shown_late(self, request: Request) -> float:
        """Seconds from the first token of a request to the moment at which its client sees it."""
        return self._offset - (self._look_wait if request.seen_late else 0.0)

    def request_done(self, request: Request, now: float) -> None:
        """See replica.Listener."""
        request.finished = now
        side = self.sides[0] if len(self.sides) == 1 or request.output == 1 else self.sides[1]
        side.router.loads[request.rank] -= 1
        if request.number < 0:
            self._follow_up(request, now)
            return
        self._record(request, now)
        if self._mirrors is not None and request.output > 1:
            for other in self._mirrors.done(request):
                self._record(other, now)

    def _record(self, request: Request, now: float) -> None:
        """Keep what a request saw that has its last token, and let its user go on."""
        run = self.run_state
        run.records.add(request, self._shown_late(request))
        if self._enough is not None and self._enough(run.records):
            self._over = run.interrupted = True
        if self._progress is not None and len(run.records) % PROGRESS_EVERY == 0:
            self._progress(len(run.records), run.submitted, now)
        self._follow_up(request, max(now, request.finished))

    def _follow_up(self, request: Request, now: float) -> None:
        following = self.stream.after(request, now) if self._wants_more() else None
        if following is not None:
            self.run_state.closed_loop = True
            self._serial += 1
            heappush(self._events, (max(now, following.arrival), self._serial, ARRIVE, following, 0, 0, 0))

    # -- end ---------------------------------------------------------------------------------------------------

    def _close(self) -> Run:
        run = self.run_state
        run.end = max([self._now, run.last_arrival])
        for side in self.sides:
            for replica in side.replicas:
                if not run.interrupted:
                    replica.sample_until(run.end)
                run.busy += replica.busy
                run.sequence_seconds += replica.sequence_seconds
                run.kv_seconds += replica.kv_seconds
                run.steps += replica.steps
            run.replicas += len(side.replicas)
            for rank in side.ranks:
                run.kv_capacity += rank.total_blocks * rank.block
                run.preemptions += rank.preempted
                run.leaked_blocks += rank.used_blocks
        return run


def simulate(
    deployment: Deployment,
    stream: Stream,
    *,
    exact: bool = False,
    progress: Callable[[int, int, float], None] | None = None,
    max_requests: int | None = None,
    details: bool = True,
    enough: Callable[[Records], bool] | None = None,
    first_token: Callable[[int, float], bool] | None = None,
) -> Run:
    """Run ``stream`` through ``deployment``; see Simulator for the options."""
    return Simulator(
        deployment, stream, exact=exact, progress=progress, max_requests=max_requests, details=details, enough=enough,
        first_token=first_token,
    ).run()  # fmt: skip
