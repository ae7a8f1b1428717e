"""Streams that meet a system in full swing: a batch that takes longer to fill than a short run lasts shows nothing of
its steady state.

Background requests, numbered below zero, are there from the start and come later; they leave no records.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import TYPE_CHECKING, Final

from planner.simulation.request import Request
from planner.simulation.streams import BATCH, ClosedLoop, OpenStream

if TYPE_CHECKING:
    import numpy as np

GOLDEN: Final = 0.6180339887498949  # multiples of it, modulo 1, are spread evenly in whatever order they are taken
_AT: Final = attrgetter("arrival")


@dataclass(frozen=True)
class Standing:
    """Requests that decode from the start, evenly far in their outputs.

    Parameters
    ----------
    count : how many. prompt, output : tokens of each. hit : share of the prompt whose KV is there already.
    spread : outputs are evenly longer and shorter by up to this share.
    together : so many of them are equally far (one for each rank).
    """

    count: int
    prompt: int
    output: int
    hit: float = 0.0
    spread: float = 0.0
    together: int = 1

    def requests(self) -> list[Request]:
        """All of them, at time 0: every rank gets all ages, whatever the router makes of the order."""
        shares = ((index // self.together + 0.5) * GOLDEN % 1.0 for index in range(self.count))
        return [self.one(index, 0.0, self._left(share)) for index, share in enumerate(shares)]

    def _left(self, share: float) -> int:
        """Output tokens that ``share`` of all have still to come, no more: renewals in their steady state, with density
        P(output > x) / mean."""
        s = self.spread
        left = share if share <= 1.0 - s else 1.0 + s - math.sqrt(4.0 * s * (1.0 - share))
        return max(math.ceil(self.output * left), 2)

    def one(self, index: int, arrival: float, left: int | None = None, *, ready: bool = True) -> Request:
        """Background request ``index`` with so many tokens to come, None for all; its KV is there if ``ready``."""
        left = self.output if left is None else left
        found, done = round(self.hit * self.prompt), max(self.output - left, 0)
        request = Request(-1 - index, arrival, self.prompt + done, left, found=found)
        request.ready = ready
        if ready:  # answered when it starts to decode: preempted there, its prompt is not handed over once more
            request.first_token = math.inf
        return request


@dataclass(frozen=True)
class Amid:
    """An open ``stream`` amid ``standing`` requests of its kind.

    Others join the decodes by the same process while the first prompts are under way (``lead`` seconds) and after the
    last ones, for three lifetimes at most. Their caches are there already, but for those that come after the stream
    where ``prefills``: in an aggregated pool their prompts are part of everybody's pace. In a split, prompts that go no
    further keep the last ones of the stream company for ``lead`` seconds, and the background joins the decodes one for
    each rank at a time, which leaves fewer moments to simulate; of its process only one of ``one_of`` gets there.
    ``computing`` prompts of that kind are there from the start: near its capacity a prefill pool takes long to get as
    full as it will be.
    """

    stream: OpenStream
    standing: Standing
    lead: float
    prefills: bool = False
    one_of: int = 1
    computing: int = 0

    def arrivals(self) -> Iterator[Request]:
        """Requests in the order of arrival."""
        import numpy as np

        rng = np.random.default_rng((self.stream.seed, self.standing.count))
        index, company = self.standing.count, replace(self.standing, output=1)
        first = [*self.standing.requests(), *self._while_leading(rng, index, self.one_of), *self.stream.arrivals()]
        first.sort(key=_AT)
        index += BATCH
        yield from (company.one(index + k, 0.0, ready=False) for k in range(self.computing))
        yield from first
        last, index = first[-1].arrival, index + self.computing
        if not self.prefills:
            for request in self._while_leading(rng, index, 1):
                yield company.one(-1 - request.number, last + request.arrival, ready=False)
            index += BATCH
        yield from self._afterwards(rng, index, last)

    def _while_leading(self, rng: np.random.Generator, index: int, one_of: int) -> list[Request]:
        """Background for ``lead`` seconds from time 0, at one of ``one_of`` arrivals."""
        now, found = 0.0, []
        for number, gap in enumerate(self.stream.process.gaps(rng, BATCH)):
            now += gap * one_of
            if now > self.lead:
                break
            found.append(self.standing.one(index + number, now))
        return found

    def _afterwards(self, rng: np.random.Generator, index: int, last: float) -> Iterator[Request]:
        """Background for three lifetimes from the ``last`` arrival of the stream on."""
        count, together = max(self.standing.count, 1), self.standing.together
        moment = last
        for _ in range(3):
            for number, gap in enumerate(self.stream.process.gaps(rng, count)):
                last += gap * self.one_of
                moment = last if number % together == 0 else moment
                yield self.standing.one(index + number, moment + self.lead, ready=not self.prefills)
            index += count

    def after(self, request: Request, finished: float) -> Request | None:
        """Nothing follows."""
        return None


@dataclass(frozen=True)
class ClosedAmid:
    """A closed ``loop`` whose users are in the middle of their requests when it starts, as if it had run for long: at
    once they would be in step for many generations.

    As many as stand decode, ``computing`` others have just sent a prompt; then each goes on as users of ``loop`` do,
    which has none of its own.
    """

    loop: ClosedLoop
    standing: Standing
    computing: int

    def arrivals(self) -> Iterator[Request]:
        """Background requests of all users, each in the middle of one."""
        yield from self.loop.arrivals()
        yield from self.standing.requests()
        for index in range(self.computing):
            request = self.standing.one(self.standing.count + index, 0.0, ready=False)
            spread = self.standing.spread * (2.0 * (index * GOLDEN % 1.0) - 1.0)
            request.output = max(round(self.standing.output * (1.0 + spread)), 1)
            yield request

    def after(self, request: Request, finished: float) -> Request | None:
        """The next request of the user."""
        return self.loop.after(request, finished)
