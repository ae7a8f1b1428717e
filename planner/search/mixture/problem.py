"""What the mixture optimiser is asked: templates, offers, request classes, limits and goals.

Nothing here knows how a capacity was obtained: a cost model, a load test and a published table all
end in ``Template.capacity``. All values are SI (requests/s, bytes, bytes/s, watts, US dollars per hour).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from planner.units import Bytes, BytesPerSecond, PerSecond, Seconds, UsdPerHour, Watts


class Role(StrEnum):
    """What a replica does for a request: all of it, or one part of a PD or AF split."""

    AGGREGATED = "aggregated"
    PREFILL = "prefill"
    DECODE = "decode"
    ATTENTION = "attention"
    FFN = "ffn"


class Goal(StrEnum):
    """What is optimised. A tuple of goals is lexicographic: each is optimal among the optima of those before."""

    COST = "cost"
    THROUGHPUT = "throughput"
    POWER = "power"
    GPUS = "gpus"
    TEMPLATES = "templates"


@dataclass(frozen=True, slots=True)
class Template:
    """One kind of replica: role, GPUs, layout and what it carries under the SLO.

    Attributes
    ----------
    gpus : GPUs of one replica by GPU type; several types for a cross-type pipeline.
    capacity : requests/s of a class that one replica carries alone at its SLO; 0 or absent = it cannot.
    utilisation : highest share of the capacity to plan with (None: the limit of the problem).
    power : watts of one replica.
    kv_egress, kv_ingress : bytes/s of KV cache that one replica can send or receive (None: no limit).
    fabric : network that the replica hangs on; only ``KvLink`` looks at it.
    latency : seconds, carried through to the plan; the SLO is already in ``capacity``.
    pieces : sizes in GPUs of the parts that each stand inside one node, by GPU type; a type that is absent has one
        part of all its GPUs.
    """

    id: str
    model: str
    gpus: Mapping[str, int]
    capacity: Mapping[str, PerSecond]
    role: Role = Role.AGGREGATED
    utilisation: float | None = None
    power: Watts = 0.0
    kv_egress: BytesPerSecond | None = None
    kv_ingress: BytesPerSecond | None = None
    fabric: str = ""
    latency: Seconds | None = None
    pieces: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    def pieces_on(self, gpu: str) -> tuple[int, ...]:
        """Sizes of the parts on a GPU type."""
        return self.pieces.get(gpu, (self.gpus[gpu],))

    @property
    def size(self) -> int:
        """GPUs of one replica, all types together."""
        return sum(self.gpus.values())


@dataclass(frozen=True, slots=True)
class Offer:
    """GPUs of one type that can be had at one price.

    Attributes
    ----------
    price : US dollars per GPU and hour.
    available : GPUs that exist (None: no limit).
    node_gpus : GPUs are had in nodes of this many (1: one by one). A last, smaller node of a limited
        offer counts as a node of its own size.
    """

    id: str
    gpu: str
    price: UsdPerHour
    available: int | None = None
    node_gpus: int = 1
    region: str = ""
    spot: bool = False


@dataclass(frozen=True, slots=True)
class RequestClass:
    """Requests that look alike: their rate and the KV cache that one of them moves from prefill to decode.

    ``prefilled`` requests arrive with their KV cache and need decode (or attention and FFN) only.
    """

    id: str
    model: str
    rate: PerSecond
    kv_bytes: Bytes = 0.0
    prefilled: bool = False


@dataclass(frozen=True, slots=True)
class KvLink:
    """A path for KV caches from one fabric to another, bytes/s in total. Pairs without a link cannot be used."""

    source: str
    target: str
    bandwidth: BytesPerSecond


@dataclass(frozen=True, slots=True)
class Limits:
    """Optional rows of the problem.

    Attributes
    ----------
    utilisation : highest share of each replica's capacity that is planned with, in (0, 1].
    spare_replicas : replicas of any used template and region that may fail while the rest still carries its load.
    budget : US dollars per hour. ``power``: watts.
    spot_share : highest share of the GPUs that replicas stand on that may be spot, in [0, 1].
    region_floor : least share of all requests that a region serves.
    kv_links : None = every fabric reaches every other in its region; otherwise only these pairs and
        replicas of one fabric among themselves.
    """

    utilisation: float = 1.0
    spare_replicas: int = 0
    budget: UsdPerHour | None = None
    power: Watts | None = None
    spot_share: float | None = None
    region_floor: Mapping[str, float] = field(default_factory=dict)
    kv_links: tuple[KvLink, ...] | None = None


@dataclass(frozen=True, slots=True)
class MixtureProblem:
    """Integer replicas of templates on offers, and a split of every request class over them.

    With ``Goal.THROUGHPUT`` the rates are a mix: the plan carries the largest common multiple of them.
    ``slices`` cuts every class into so many equal indivisible parts (None: freely divisible).
    """

    templates: tuple[Template, ...]
    offers: tuple[Offer, ...]
    classes: tuple[RequestClass, ...]
    limits: Limits = field(default_factory=Limits)
    goals: tuple[Goal, ...] = (Goal.COST,)
    slices: int | None = None
