"""Collectives inside a scale-up domain and across domains (COST_MODEL.md point 6)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from planner.catalog.hardware import Accelerator
from planner.cost.efficiency import CollectiveConstants, Efficiency
from planner.cost.roofline import Array, array
from planner.units import BytesPerSecond, Seconds

_NETWORK_LATENCY = 5e-6
_PCIE = 25e9


@dataclass(frozen=True, slots=True)
class Topology:
    """The links a group of accelerators talks over; bandwidths in bytes/s per GPU and direction.

    ``pair_bandwidth`` is that of one pair of GPUs: below ``bandwidth`` on a full mesh of links.
    ``shared_host``: the domain is a PCIe host, whose root complex all ranks share.
    ``memory_bandwidth``: of the memory of one GPU.
    """

    bandwidth: BytesPerSecond
    latency: Seconds
    domain_size: int
    in_network_reduction: bool
    network_bandwidth: BytesPerSecond
    network_latency: Seconds
    pair_bandwidth: BytesPerSecond
    memory_bandwidth: BytesPerSecond
    shared_host: bool = False

    @classmethod
    def of(cls, accelerator: Accelerator) -> Topology:
        """Links of the usual node of ``accelerator``; without a scale-up link the node talks over PCIe."""
        link = accelerator.scale_up
        linked = link.bandwidth > 0
        return cls(
            bandwidth=link.bandwidth if linked else _PCIE,
            latency=link.latency,
            domain_size=max(1, link.domain_size if linked else accelerator.gpus_per_node),
            in_network_reduction=link.in_network_reduction,
            network_bandwidth=accelerator.network_bandwidth or _PCIE / 2,
            network_latency=_NETWORK_LATENCY,
            pair_bandwidth=link.pair_bandwidth if linked else _PCIE,
            memory_bandwidth=accelerator.memory_bandwidth,
            shared_host=not linked or link.kind.lower().startswith("pcie"),
        )


@dataclass(frozen=True, slots=True)
class ReduceKernel:
    """How an engine's own all-reduce inside a domain departs from the usual one (`CollectiveConstants.custom_*`).

    Attributes
    ----------
    two_phase : share of the link when the kernel reduces, then gathers; 0 for the usual one's.
    wire_bits : bits of an element on the wire, its scale aside; below 16 large messages are quantised on their way.
    """

    two_phase: float = 0.0
    wire_bits: float = 16.0


USUAL_REDUCE = ReduceKernel()

# Quantised all-reduce (QuickReduce: two phases, a 16-bit scale for 32 elements), by eye from the published kernel times
# in tests/cost/data/all_reduce_amd.csv. Engines switch to it from 1 to 2 MB on, about where it begins to pay.
_QUANTISED_START = 20e-6
_QUANTISED_LINK = 0.68
_QUANTISED_MEMORY = 0.04  # bytes/s that a GPU packs and unpacks over its memory bandwidth
_SCALE_BITS = 16.0 / 32.0


def _inside(ranks: Array, topology: Topology) -> tuple[Array, Array]:
    """Ranks per domain and number of domains of a group that fills domains one after the other."""
    local = np.minimum(ranks, float(topology.domain_size))
    return local, np.ceil(ranks / float(topology.domain_size))


def _link(local: Array, topology: Topology, constants: CollectiveConstants) -> Array:
    """Bytes/s per GPU that ``local`` ranks can use.

    On a mesh only links to ranks of the group count; behind a PCIe host the ranks share its root complex.
    """
    if topology.shared_host:
        return topology.bandwidth * (2.0 / np.maximum(local, 2.0)) ** constants.host_sharing
    return np.minimum(topology.bandwidth, np.maximum(local - 1.0, 1.0) * topology.pair_bandwidth)


def _network(wire: Array, domains: Array, topology: Topology, constants: CollectiveConstants) -> Array:
    """Seconds between domains: a latency per doubling and the wire bytes of one NIC."""
    seconds = wire / (constants.network_bandwidth * topology.network_bandwidth)
    hop = constants.network_start + topology.network_latency
    crossing = hop * np.log2(np.maximum(domains, 1.0)) + seconds + constants.fill * np.sqrt(seconds)
    return np.where(domains > 1, crossing, 0.0)


def _stream(wire: Array, link: Array, constants: CollectiveConstants) -> Array:
    """W/B + fill*sqrt(W/B) with B = share*link: bytes in flight and the fill of their pipeline."""
    seconds = wire / (constants.bandwidth * link)
    return seconds + constants.fill * np.sqrt(seconds)


def _hops(local: Array, topology: Topology, constants: CollectiveConstants) -> Array:
    """Seconds of n - 1 ring steps, or of a tree where it needs fewer; a step costs hop fabric latencies."""
    steps = np.minimum(local - 1.0, constants.tree * np.log2(np.maximum(local, 1.0)))
    return steps * (constants.hop * topology.latency)


def _finish(total: Array, ranks: Array, size: Array) -> Array:
    return np.where((ranks > 1) & (size > 0), total, 0.0)


def _custom(
    size: Array,
    local: Array,
    link: Array,
    constants: CollectiveConstants,
    launch: Seconds | None,
    kernel: ReduceKernel,
    topology: Topology,
) -> Array:
    """The engines' one-kernel all-reduce: every rank reads all others, or reduces its part and gathers."""
    wire = 2.0 * size * (local - 1.0) / local
    direct = size * (local - 1.0) / (constants.custom_direct * link)
    two_phase = wire / ((kernel.two_phase or constants.custom_two_phase) * link)
    start = constants.custom_start if launch is None else launch
    plain = start + constants.custom_hop * (local - 1.0) + np.minimum(direct, two_phase)
    if kernel.wire_bits >= 16.0:
        return plain
    packed = wire * ((kernel.wire_bits + _SCALE_BITS) / 16.0) / (_QUANTISED_LINK * link)
    quantised = _QUANTISED_START + np.maximum(packed, size / (_QUANTISED_MEMORY * topology.memory_bandwidth))
    return np.minimum(plain, quantised)


def all_reduce_seconds(
    message_bytes: ArrayLike,
    ranks: ArrayLike,
    *,
    topology: Topology,
    efficiency: Efficiency,
    custom_kernel: ReduceKernel | None = USUAL_REDUCE,
    launch: Seconds | None = None,
) -> Array:
    """Seconds to sum ``message_bytes`` over ``ranks``; exactly 0 for one rank.

    Library: 2*(n-1) hops and wire bytes 2*S*(n-1)/n + own*S/n, fewer where the switch reduces.
    ``custom_kernel`` also allows an engine's own kernel inside a domain; none leaves the library's. Across domains:
    reduce-scatter inside, all-reduce of 1/n of the message between NICs, all-gather inside.
    """
    size, n = array(message_bytes), array(ranks)
    constants = efficiency.collective
    local, domains = _inside(n, topology)
    link = _link(local, topology, constants)
    gain = np.where(local > 2, constants.in_network, 1.0) if topology.in_network_reduction else 1.0
    wire = size * (2.0 * (local - 1.0) + constants.own) / (local * gain)
    total = _stream(wire, link, constants) + 2.0 * _hops(local, topology, constants)
    total = total + (constants.start if launch is None else launch)
    if custom_kernel is not None:
        total = np.minimum(total, _custom(size, local, link, constants, launch, custom_kernel, topology))
    across = _network(2.0 * size / local * (domains - 1.0) / domains, domains, topology, constants)
    return _finish(total + across, n, size)


def all_gather_seconds(
    message_bytes: ArrayLike,
    ranks: ArrayLike,
    *,
    topology: Topology,
    efficiency: Efficiency,
    launch: Seconds | None = None,
) -> Array:
    """Seconds to gather a buffer of ``message_bytes`` in total on every rank: wire bytes S*(n-1)/n."""
    size, n = array(message_bytes), array(ranks)
    constants = efficiency.collective
    local, domains = _inside(n, topology)
    wire = size * (local - 1.0 + constants.own) / local
    total = _stream(wire, _link(local, topology, constants), constants)
    total = total + _hops(local, topology, constants)
    across = _network(size / local * (domains - 1.0) / domains, domains, topology, constants)
    return _finish(total + across + (constants.start if launch is None else launch), n, size)


def reduce_scatter_seconds(
    message_bytes: ArrayLike,
    ranks: ArrayLike,
    *,
    topology: Topology,
    efficiency: Efficiency,
    launch: Seconds | None = None,
) -> Array:
    """Seconds to sum a buffer of ``message_bytes`` and leave 1/n on each rank: an all-gather backwards."""
    return all_gather_seconds(message_bytes, ranks, topology=topology, efficiency=efficiency, launch=launch)


def all_to_all_seconds(
    bytes_per_rank: ArrayLike,
    ranks: ArrayLike,
    *,
    topology: Topology,
    efficiency: Efficiency,
    launch: Seconds | None = None,
) -> Array:
    """Seconds for each rank to send ``bytes_per_rank`` spread over all ranks.

    One hop, then the slower of traffic inside the domain S*(d-1)/n and through the NIC S*(n-d)/n, d ranks
    per domain.
    """
    size, n = array(bytes_per_rank), array(ranks)
    constants = efficiency.collective
    local, domains = _inside(n, topology)
    wire = size * (local - 1.0 + constants.own) / n
    inside = _stream(wire, _link(local, topology, constants), constants)
    across = _network(size * (n - local) / n, domains, topology, constants)
    total = np.maximum(inside, across) + constants.hop * topology.latency
    return _finish(total + (constants.start if launch is None else launch), n, size)


def point_to_point_seconds(
    message_bytes: ArrayLike,
    *,
    topology: Topology,
    efficiency: Efficiency,
    across: bool = False,
    launch: Seconds | None = None,
) -> Array:
    """Seconds to send ``message_bytes`` to one other GPU, inside the domain or ``across`` domains.

    Inside, one hop and S/(share*pair bandwidth): no ring to fill (measured/ops/p2p.csv).
    """
    size = array(message_bytes)
    constants = efficiency.collective
    two = np.full_like(size, 2.0)
    if across:
        total = _network(size, two, topology, constants)
    else:
        total = constants.hop * topology.latency + size / (constants.bandwidth * topology.pair_bandwidth)
    return _finish(total + (constants.start if launch is None else launch), two, size)


def link_seconds(wire_bytes: ArrayLike, *, topology: Topology, efficiency: Efficiency, across: bool = False) -> Array:
    """Seconds for which ``wire_bytes`` occupy the link of one GPU, or its NIC if ``across``: bytes over the bandwidth
    that is reached. Latencies and the fill of a pipeline delay a message, but another one may use the link meanwhile.
    """
    constants = efficiency.collective
    if across:
        return array(wire_bytes) / (constants.network_bandwidth * topology.network_bandwidth)
    return array(wire_bytes) / (constants.bandwidth * topology.bandwidth)
