"""Requests of a decode pool of which only a part is simulated."""

from __future__ import annotations

from dataclasses import dataclass, field

from planner.simulation.request import Request


@dataclass(slots=True)
class _Group:
    """Requests that come one after the other: the first decodes in the simulated part, at ``handed`` (s), after it had
    ``waited`` (s) for links; the others with the moments at which they came."""

    leader: Request
    handed: float
    waited: float
    others: list[tuple[Request, float]] = field(default_factory=list)


class Mirrors:
    """Of every ``one_of`` requests whose KV reaches the decode pool the first one decodes. The next ones go to ranks
    that are not simulated and do there as it does, each as much later as it came: alike ranks in turn get alike work,
    where requests are of equal lengths.

    Parameters
    ----------
    answers : whether the first token comes from the decode pool.
    """

    def __init__(self, one_of: int, answers: bool) -> None:
        self._one_of = one_of
        self._answers = answers
        self._count = 0
        self._newest: _Group | None = None
        self._groups: dict[int, _Group] = {}

    def leads(self, request: Request, now: float) -> bool:
        """Whether a request that comes ``now`` is simulated; otherwise it waits for the one that it does as."""
        leads = not self._count
        self._count = (self._count + 1) % self._one_of
        if leads or self._newest is None:
            self._newest = self._groups[request.number] = _Group(request, now, request.waited)
        else:
            self._newest.others.append((request, now))
        return leads

    def done(self, leader: Request) -> list[Request]:
        """The requests that are known now that ``leader`` has its last token, with their moments filled in."""
        group = self._groups.pop(leader.number)
        others, group.others = group.others, []
        for request, handed in others:
            later = handed - group.handed
            request.waited += leader.waited - group.waited
            request.preemptions = leader.preemptions
            request.finished = leader.finished + later
            if self._answers:
                request.first_token = leader.first_token + later
        return [request for request, _ in others]

    def late(self) -> list[Request]:
        """As ``done`` for what came to the newest group after its leader was through."""
        group = self._newest
        if group is None or group.leader.finished < 0 or not group.others:
            return []
        self._groups[group.leader.number] = group
        return self.done(group.leader)
