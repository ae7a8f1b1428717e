"""Candidates and their order: what one answer is, and which of two is better."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from planner.job.job import Objective
from planner.search.candidates import Metrics
from planner.search.reject import Rejections
from planner.serving.layout import Layout
from planner.serving.lengths import Lengths
from planner.serving.replica import Replica
from planner.units import UsdPerHour


@dataclass(frozen=True, slots=True)
class GpuMemory:
    """Bytes on the fullest GPU: weights, activations, and what each running request adds."""

    weights: float
    activations: float
    request: float


@dataclass(frozen=True, slots=True)
class Candidate:
    """One deployable answer: equal replicas of one layout on one GPU type.

    ``per_replica`` is what one replica does; ``rate`` requests/s of all of them; ``idle`` GPUs of the fleet left over;
    ``price`` US dollars per GPU and hour, None when unknown.
    """

    replica: Replica
    layout: Layout
    replicas: int
    idle: int
    rate: float
    osl: float
    per_replica: Metrics
    slots: float
    memory: GpuMemory
    lengths: Lengths
    price: UsdPerHour | None
    concurrency: float | None = None

    @property
    def gpus(self) -> int:
        """GPUs in use."""
        return self.replicas * self.layout.gpus

    @property
    def output_rate(self) -> float:
        """Output tokens/s of all replicas."""
        return self.rate * self.osl

    @property
    def cost(self) -> UsdPerHour | None:
        """US dollars per hour of the GPUs in use."""
        return None if self.price is None else self.price * self.gpus

    @property
    def usd_per_million_tokens(self) -> float | None:
        """US dollars per million output tokens at this load."""
        return None if self.cost is None else self.cost / 3600 / self.output_rate * 1e6

    @property
    def joules_per_token(self) -> float:
        """Board power of the GPUs in use, at its limit, over output tokens/s."""
        return self.gpus * self.replica.accelerator.power / self.output_rate

    @property
    def name(self) -> tuple[str, ...]:
        """A total order that does not depend on catalogs: last tie-break."""
        r = self.replica
        return (r.accelerator.id, *(f"{x:05d}" for x in self.layout), r.weights, r.kv, f"{self.replicas:06d}")


@dataclass(slots=True)
class Outcome:
    """Everything a search found. ``points`` counts evaluated operating points, ``candidates`` layouts x
    precisions x types.
    """

    ranked: list[Candidate] = field(default_factory=list)
    frontier: list[Candidate] = field(default_factory=list)
    rejections: Rejections = field(default_factory=Rejections)
    candidates: int = 0
    points: int = 0
    fleet: int = 0
    objective: Objective = "throughput"


def rank_key(objective: Objective, percentile: str) -> Callable[[Candidate], tuple[object, ...]]:
    """Sort key, best first. Ties: more output, fewer GPUs, lower TPOT, then the name."""

    def key(c: Candidate) -> tuple[object, ...]:
        m = c.per_replica
        unpriced = c.cost is None
        first: dict[str, tuple[float, ...]] = {
            "throughput": (-c.output_rate,),
            "cost": (float(unpriced), c.usd_per_million_tokens or 0.0)
            if c.concurrency is None
            else (float(unpriced), c.cost or 0.0),
            "latency": (m.e2e[percentile],),
            "gpus": (float(c.gpus), -c.output_rate),
            "energy": (c.joules_per_token,),
        }
        return (
            *(round(x, 12) for x in first[objective]),
            -round(c.output_rate, 9),
            c.gpus,
            round(m.tpot[percentile], 12),
            c.name,
        )

    return key


def pareto(candidates: list[Candidate], percentile: str) -> list[Candidate]:
    """Candidates that no other beats in both output tokens/s per GPU and speed seen by a user (1/TPOT)."""
    frontier: list[Candidate] = []
    best = 0.0
    for c in sorted(candidates, key=lambda c: (c.per_replica.tpot[percentile], -c.output_rate / c.gpus, c.name)):
        if c.output_rate / c.gpus > best:
            best = c.output_rate / c.gpus
            frontier.append(c)
    return frontier
