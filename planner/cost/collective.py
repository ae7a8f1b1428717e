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
    """

    bandwidth: BytesPerSecond
    latency: Seconds
    domain_size: int
    in_network_reduction: bool
    network_bandwidth: BytesPerSecond
    network_latency: Seconds
    pair_bandwidth: BytesPerSecond

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
        )


def _inside(ranks: Array, topology: Topology) -> tuple[Array, Array]:
    """Ranks per domain and number of domains of a group that fills domains one after the other."""
    local = np.minimum(ranks, float(topology.domain_size))
    return local, np.ceil(ranks / float(topology.domain_size))


def _link(local: Array, topology: Topology) -> Array:
    """Bytes/s per GPU that ``local`` ranks can use: on a mesh only links to ranks of the group count."""
    return np.minimum(topology.bandwidth, np.maximum(local - 1.0, 1.0) * topology.pair_bandwidth)


def _network(wire: Array, domains: Array, topology: Topology, constants: CollectiveConstants) -> Array:
    """Seconds between domains: a latency per doubling and the wire bytes of one NIC."""
    seconds = wire / (constants.network_bandwidth * topology.network_bandwidth)
    hop = constants.network_start + topology.network_latency
    crossing = hop * np.log2(np.maximum(domains, 1.0)) + seconds + constants.fill * np.sqrt(seconds)
    return np.where(domains > 1, crossing, 0.0)


def _ring(wire: Array, local: Array, link: Array, constants: CollectiveConstants) -> Array:
    """step*log2(n) + W/B + fill*sqrt(W/B): the start is added by the caller."""
    seconds = wire / (constants.bandwidth * link)
    return constants.step * np.log2(np.maximum(local, 1.0)) + seconds + constants.fill * np.sqrt(seconds)


def _finish(total: Array, ranks: Array, size: Array, start: Seconds) -> Array:
    return np.where((ranks > 1) & (size > 0), total + start, 0.0)


def all_reduce_seconds(
    message_bytes: ArrayLike,
    ranks: ArrayLike,
    *,
    topology: Topology,
    efficiency: Efficiency,
    custom_kernel: bool = True,
    launch: Seconds | None = None,
) -> Array:
    """Seconds to sum ``message_bytes`` over ``ranks``; exactly 0 for one rank.

    Library: wire bytes 2*S*(n-1)/n, fewer where the switch reduces. ``custom_kernel`` allows the engines'
    one-kernel all-reduce inside a domain (each rank reads all others, or two phases). Across domains:
    reduce-scatter inside, all-reduce of 1/n of the message between NICs, all-gather inside.
    """
    size, n = array(message_bytes), array(ranks)
    constants = efficiency.collective
    local, domains = _inside(n, topology)
    link = _link(local, topology)
    gain = constants.in_network if topology.in_network_reduction else 1.0
    wire = 2.0 * size * (local - 1.0) / local
    library = _ring(wire / gain, local, link, constants) + constants.start
    if launch is not None:
        library = library - constants.start + launch
    if custom_kernel:
        start = constants.custom_start if launch is None else launch
        rate = constants.custom_bandwidth * link
        custom = start + constants.custom_step * np.log2(np.maximum(local, 1.0))
        custom = custom + np.minimum(size * (local - 1.0), wire * 1.5) / rate
        library = np.minimum(library, custom)
    across = _network(2.0 * size / local * (domains - 1.0) / domains, domains, topology, constants)
    return _finish(library + across, n, size, 0.0)


def _gather(
    size: Array, n: Array, topology: Topology, efficiency: Efficiency, launch: Seconds | None
) -> Array:
    constants = efficiency.collective
    local, domains = _inside(n, topology)
    inside = _ring(size * (local - 1.0) / local, local, _link(local, topology), constants)
    across = _network(size / local * (domains - 1.0) / domains, domains, topology, constants)
    return _finish(inside + across, n, size, constants.start if launch is None else launch)


def all_gather_seconds(
    message_bytes: ArrayLike,
    ranks: ArrayLike,
    *,
    topology: Topology,
    efficiency: Efficiency,
    launch: Seconds | None = None,
) -> Array:
    """Seconds to gather a buffer of ``message_bytes`` in total on every rank: wire bytes S*(n-1)/n."""
    return _gather(array(message_bytes), array(ranks), topology, efficiency, launch)


def reduce_scatter_seconds(
    message_bytes: ArrayLike,
    ranks: ArrayLike,
    *,
    topology: Topology,
    efficiency: Efficiency,
    launch: Seconds | None = None,
) -> Array:
    """Seconds to sum a buffer of ``message_bytes`` and leave 1/n on each rank: wire bytes S*(n-1)/n."""
    return _gather(array(message_bytes), array(ranks), topology, efficiency, launch)


def all_to_all_seconds(
    bytes_per_rank: ArrayLike,
    ranks: ArrayLike,
    *,
    topology: Topology,
    efficiency: Efficiency,
    launch: Seconds | None = None,
) -> Array:
    """Seconds for each rank to send ``bytes_per_rank`` spread over all ranks.

    The slower of NVLink traffic S*(d-1)/n and NIC traffic S*(n-d)/n, d ranks per domain.
    """
    size, n = array(bytes_per_rank), array(ranks)
    constants = efficiency.collective
    local, domains = _inside(n, topology)
    inside = _ring(size * (local - 1.0) / n, local, _link(local, topology), constants)
    across = _network(size * (n - local) / n, domains, topology, constants)
    return _finish(np.maximum(inside, across), n, size, constants.start if launch is None else launch)


def point_to_point_seconds(
    message_bytes: ArrayLike,
    *,
    topology: Topology,
    efficiency: Efficiency,
    across: bool = False,
    launch: Seconds | None = None,
) -> Array:
    """Seconds to send ``message_bytes`` to one other GPU, inside the domain or ``across`` domains."""
    size = array(message_bytes)
    constants = efficiency.collective
    two = np.full_like(size, 2.0)
    if across:
        total = _network(size, two, topology, constants)
    else:
        total = _ring(size, two, np.full_like(size, topology.pair_bandwidth), constants)
    return _finish(total, two, size, constants.start if launch is None else launch)
