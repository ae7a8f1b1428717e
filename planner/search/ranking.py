"""Candidates and their order: what one answer is, and which of two is better.

An answer is a composition of pools; a role is data, so a new way to split serving is a new composition.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from planner.catalog.hardware import Accelerator
from planner.job.job import Mode, Objective
from planner.search.candidates import GpuMemory as GpuMemory
from planner.search.candidates import Metrics
from planner.search.reject import Rejections
from planner.serving.layout import Layout
from planner.serving.lengths import Lengths
from planner.serving.replica import Replica
from planner.units import UsdPerHour, Watts

Role = Literal["aggregated", "prefill", "decode", "attention", "ffn"]


@dataclass(frozen=True, slots=True)
class Share:
    """Equal replicas of one layout on one GPU type in one role; ``batch`` requests in work per attention rank,
    ``slots`` how many fit; ``price`` US dollars per GPU and hour (the mean of its GPUs), None when unknown. Replicas
    of attention and feed-forward workers make up ``instances`` of a split model, each with ``micro_batches`` in flight.
    """

    role: Role
    replica: Replica
    layout: Layout
    replicas: int
    batch: float
    slots: float
    memory: GpuMemory
    price: UsdPerHour | None
    micro_batches: int = 1
    instances: int = 1

    @property
    def pieces(self) -> tuple[tuple[Accelerator, int], ...]:
        """GPUs of one replica that stand inside one node, by type: all of them, or those of each stage where the
        stages of a pipeline stand on different types."""
        stages = self.replica.stages
        return tuple((s.replica.accelerator, s.tp) for s in stages) or ((self.replica.accelerator, self.layout.gpus),)

    @property
    def gpus(self) -> int:
        """GPUs in use."""
        return self.replicas * sum(size for _, size in self.pieces)

    @property
    def power(self) -> Watts:
        """Board power of the GPUs in use, at its limit."""
        return self.replicas * sum(size * accelerator.power for accelerator, size in self.pieces)

    @property
    def split(self) -> str:
        """How one replica is cut, with the layers of each stage where these stand on different GPU types."""
        return " | ".join(str(stage) for stage in self.replica.stages) or str(self.layout)

    @property
    def name(self) -> tuple[str, ...]:
        """A total order that does not depend on catalogs."""
        r = self.replica
        split = (f"{x:05d}" for x in self.layout)
        last = (f"{self.replicas:06d}", str(r.speculation or ""), *(str(stage) for stage in r.stages))
        return (r.accelerator.id, *split, r.weights, r.kv, *last)

    def __str__(self) -> str:
        r = self.replica
        drafts = "" if r.speculation is None else f" {r.speculation}"
        return f"{self.role} {r.hardware} {self.split} x{self.replicas} {r.weights}{drafts}"


@dataclass(frozen=True, slots=True)
class Candidate:
    """One deployable answer: a composition of pools, of which the last one emits the tokens.

    ``per_replica`` is what one replica of that pool does and what users of the deployment see; ``rate`` requests/s of
    all of it; ``idle`` GPUs of the types in use that are left over.
    """

    pools: tuple[Share, ...]
    idle: int
    rate: float
    osl: float
    per_replica: Metrics
    lengths: Lengths
    concurrency: float | None = None

    @property
    def mode(self) -> Mode:
        """What the roles of the pools amount to."""
        roles = {pool.role for pool in self.pools}
        return "af" if "attention" in roles else "pd" if "prefill" in roles else "aggregated"

    @property
    def emitting(self) -> Share:
        """The pool that decodes."""
        return self.pools[-1]

    @property
    def replica(self) -> Replica:
        """Replica of the pool that decodes."""
        return self.emitting.replica

    @property
    def layout(self) -> Layout:
        """Layout of the pool that decodes."""
        return self.emitting.layout

    @property
    def replicas(self) -> int:
        """Replicas of the pool that decodes."""
        return self.emitting.replicas

    @property
    def instances(self) -> int:
        """Whole models of the pool that decodes: its replicas, or the groups that attention and FFN workers make up."""
        return self.emitting.instances if self.mode == "af" else self.replicas

    @property
    def ranks(self) -> int:
        """Attention ranks of one of them."""
        return self.layout.attention_dp * self.replicas // self.instances

    @property
    def slots(self) -> float:
        """Requests that fit on one attention rank of the pool that decodes."""
        return self.emitting.slots

    @property
    def memory(self) -> GpuMemory:
        """Memory of the pool that decodes."""
        return self.emitting.memory

    @property
    def gpus(self) -> int:
        """GPUs in use."""
        return sum(pool.gpus for pool in self.pools)

    @property
    def gpus_by_type(self) -> dict[str, int]:
        """GPUs in use by catalog id."""
        found: dict[str, int] = {}
        for pool in self.pools:
            for accelerator, size in pool.pieces:
                found[accelerator.id] = found.get(accelerator.id, 0) + pool.replicas * size
        return found

    @property
    def output_rate(self) -> float:
        """Output tokens/s of all replicas."""
        return self.rate * self.osl

    @property
    def cost(self) -> UsdPerHour | None:
        """US dollars per hour of the GPUs in use; None when a price is unknown."""
        costs = [None if pool.price is None else pool.price * pool.gpus for pool in self.pools]
        known = [cost for cost in costs if cost is not None]
        return sum(known) if len(known) == len(costs) else None

    @property
    def usd_per_million_tokens(self) -> float | None:
        """US dollars per million output tokens at this load."""
        return None if self.cost is None else self.cost / 3600 / self.output_rate * 1e6

    @property
    def joules_per_token(self) -> float:
        """Board power of the GPUs in use, at its limit, over output tokens/s."""
        return sum(pool.power for pool in self.pools) / self.output_rate

    @property
    def name(self) -> tuple[str, ...]:
        """A total order that does not depend on catalogs: last tie-break."""
        return (str(len(self.pools)), *(part for pool in self.pools for part in pool.name))


@dataclass(slots=True)
class Outcome:
    """Everything a search found. ``points`` counts evaluated operating points, ``candidates`` layouts x
    precisions x types. ``exhaustive``: every candidate was evaluated, so the best one is optimal. ``per_gpu``: the most
    requests/s of a GPU of each type in any aggregated layout under Poisson arrivals, whether the fleet holds it or not.
    """

    ranked: list[Candidate] = field(default_factory=list)
    frontier: list[Candidate] = field(default_factory=list)
    rejections: Rejections = field(default_factory=Rejections)
    candidates: int = 0
    points: int = 0
    fleet: int = 0
    objective: Objective = "throughput"
    exhaustive: bool = True
    per_gpu: dict[str, float] = field(default_factory=dict)


RankKey = Callable[[Candidate], tuple[object, ...]]


def rank_key(objective: Objective, percentile: str) -> RankKey:
    """Sort key, best first. Ties: more output, fewer GPUs, lower TPOT, then the name."""

    def first(c: Candidate) -> tuple[float, ...]:
        match objective:
            case "throughput":
                return (-c.output_rate,)
            case "cost":
                paid = c.usd_per_million_tokens if c.concurrency is None else c.cost
                return (float(c.cost is None), paid or 0.0)
            case "latency":
                return (c.per_replica.e2e[percentile],)
            case "gpus":
                return (float(c.gpus), -c.output_rate)
            case "energy":
                return (c.joules_per_token,)

    def key(c: Candidate) -> tuple[object, ...]:
        m = c.per_replica
        return (
            *(round(x, 12) for x in first(c)),
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
