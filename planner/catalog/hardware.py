"""Accelerators, nodes, fabrics and prices as typed values in SI units.

The data lies in ``hardware_catalog/`` (TOML, a unit in every key, a source for every value); the
loader converts once, here, and nothing downstream knows a file format.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from planner.units import Bytes, BytesPerSecond, FlopPerSecond, Seconds, UsdPerHour, Watts


@dataclass(frozen=True, slots=True)
class ScaleUp:
    """The fast interconnect inside a node or rack (NVLink, Infinity Fabric, ICI, PCIe).

    Attributes
    ----------
    kind : fabric name, an id in the catalog of fabrics.
    bandwidth : bytes/s per GPU and direction, all links together.
    pair_bandwidth : bytes/s between one pair of GPUs and per direction; lower than ``bandwidth`` on a
        full mesh (Infinity Fabric), equal to it behind a switch.
    domain_size : GPUs that reach each other over it.
    latency : seconds before the first byte of a collective step.
    in_network_reduction : whether the switch reduces (NVLink SHARP).
    """

    kind: str
    bandwidth: BytesPerSecond
    pair_bandwidth: BytesPerSecond
    domain_size: int
    latency: Seconds
    in_network_reduction: bool = False


@dataclass(frozen=True, slots=True)
class Accelerator:
    """One accelerator as its datasheet and driver describe it.

    Attributes
    ----------
    id : lower-case catalog id, for example ``h100-sxm``.
    family : key of the efficiency profile (``hopper``, ``blackwell``, ``ampere``, ``ada``, ``cdna3`` ...).
    memory : usable bytes as the driver reports them.
    memory_bandwidth : bytes/s, datasheet peak.
    flops : dense peak FLOP/s by math type: ``bf16``, ``fp16``, ``fp8``, ``fp4``, ``int8``, ``fp32``.
        Absent = no hardware support.
    compute_units : SMs, CUs or cores; the grain of wave quantisation.
    l2 : bytes of last-level on-chip cache (0 = unknown).
    scale_up : interconnect inside the domain.
    network_bandwidth : bytes/s per GPU and direction to other domains in the usual node (NIC).
    gpus_per_node : GPUs of the usual node.
    power : board power limit in watts (0 = unknown).
    confidence : how sure the values are: ``high``, ``medium``, ``low``; ``user`` in a user's own file.
    sources : source by field name; ``all`` covers the fields without one of their own.
    announced : figures from before the release, or of a part that was never broadly shipped.
    """

    id: str
    name: str
    vendor: str
    family: str
    year: int
    memory: Bytes
    memory_bandwidth: BytesPerSecond
    flops: Mapping[str, FlopPerSecond]
    compute_units: int
    l2: Bytes
    scale_up: ScaleUp
    network_bandwidth: BytesPerSecond
    gpus_per_node: int
    power: Watts
    aliases: tuple[str, ...] = ()
    confidence: str = "medium"
    sources: Mapping[str, str] = field(default_factory=dict)
    notes: str = ""
    announced: bool = False

    def peak(self, math: str) -> FlopPerSecond:
        """Dense FLOP/s for ``math``; a type that the hardware lacks runs at the next wider one it has.

        fp4 -> fp8 -> bf16 -> fp16 -> fp32 (weights are widened in registers); int8 -> bf16.
        """
        for candidate in _FALLBACK[math]:
            if candidate in self.flops:
                return self.flops[candidate]
        raise KeyError(math)


_FALLBACK: Mapping[str, tuple[str, ...]] = {
    "fp4": ("fp4", "fp8", "bf16", "fp16", "fp32"),
    "fp8": ("fp8", "bf16", "fp16", "fp32"),
    "int8": ("int8", "bf16", "fp16", "fp32"),
    "bf16": ("bf16", "fp16", "fp32"),
    "fp16": ("fp16", "bf16", "fp32"),
    "fp32": ("fp32", "bf16", "fp16"),
}


@dataclass(frozen=True, slots=True)
class Node:
    """A server or instance type: which GPUs, how many, and its network.

    Attributes
    ----------
    network_bandwidth : bytes/s per direction of all NICs of the node together.
    fabric : network between nodes, an id in the catalog of fabrics.
    scale_up_domain : GPUs that reach each other over the scale-up fabric (72 in a rack of 4-GPU trays).
    """

    id: str
    provider: str
    accelerator: str
    gpus: int
    network_bandwidth: BytesPerSecond
    nics: int
    fabric: str
    scale_up_domain: int
    source: str


@dataclass(frozen=True, slots=True)
class Fabric:
    """An interconnect technology: datasheet bandwidth, latencies and the share that collectives reach.

    Attributes
    ----------
    kind : ``scale-up`` (inside a node or rack) or ``scale-out`` (network).
    bandwidth : bytes/s per direction; per GPU of a scale-up fabric, per port of a network.
    latency : seconds that each step of a ring (or each network hop) adds before its first byte.
    achieved_fraction : share of ``bandwidth`` that large ring collectives sustain.
    call_latency : seconds that each collective call adds once (launch, synchronisation).
    in_network_fraction : the same share for an all-reduce done by the switch; 0 = the switch does not reduce.
    """

    id: str
    kind: str
    bandwidth: BytesPerSecond
    latency: Seconds
    achieved_fraction: float
    source: str
    call_latency: Seconds = 0.0
    in_network_fraction: float = 0.0


@dataclass(frozen=True, slots=True)
class Price:
    """A dated price of one GPU.

    Attributes
    ----------
    term : ``on-demand``, ``spot``, ``reserved-1y`` or ``reserved-3y``.
    usd_per_gpu_hour : US dollars per accelerator and hour, its share of the host included.
    date : when the price held, ``2026-07-20``, ``2026-07`` or ``2026`` as exactly as the source says.
    own : from a user's catalog; a reference price prefers these.
    """

    provider: str
    instance: str
    accelerator: str
    gpus: int
    term: str
    usd_per_gpu_hour: UsdPerHour
    region: str
    date: str
    source: str
    own: bool = False
