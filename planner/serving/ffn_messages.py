"""Messages between attention workers and feed-forward workers: seconds of a message, and how long it occupies links.

Tokens cross the network once per worker that they visit, over the NICs of all GPUs of both sides; behind them a worker
hands them on to the GPUs that need them, over its own links: to all GPUs that share an expert, to those of the right
group with expert parallelism. Results take the same way back in bf16, summed inside the worker first. GPUs that share
experts gather and reduce-scatter inside the products, tile by tile (Flux, arXiv 2406.06858): what the products hide so
does not delay a token. Where both sides share a scale-up domain there is no network, and every GPU is written to
directly. Where captured graphs stop for an exchange, a message leaves later by half of what the engine profile says of
both: that delays a micro-batch and occupies nothing, since others may run meanwhile.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from planner.architecture.model import Part
from planner.cost.collective import all_gather_seconds, all_to_all_seconds, link_seconds, point_to_point_seconds
from planner.serving.iteration import ACTIVATION_BYTES
from planner.serving.layout import Array
from planner.serving.replica import Replica

_MANY_TO_MANY = 0.82
"""Share of what one pair of NICs reaches that remains when many senders write to many receivers. With the NIC's own
efficiency it makes 0.7 of line rate: the middle of what Step-3's figures imply (0.6 to 0.8, arXiv 2507.19427)."""
_FUSED = 0.8
"""Share of a gather or reduce-scatter that a product of the same length hides (Flux reports up to 0.96)."""


@dataclass(frozen=True, slots=True)
class Messages:
    """Seconds of one layer: ``dispatch`` and ``combine`` from first to last byte; ``to_ffn``, ``back`` and ``inside``
    occupy the network in each direction and the links inside a feed-forward worker."""

    dispatch: Array
    combine: Array
    to_ffn: Array
    back: Array
    inside: Array

    def times(self, layers: float) -> Messages:
        """The same for so many layers."""
        return Messages(
            self.dispatch * layers, self.combine * layers, self.to_ffn * layers, self.back * layers,
            self.inside * layers,
        )  # fmt: skip


def dispatch_bytes(ffn: Replica) -> float:
    """Bytes per hidden element on the way to the experts: their 8-bit arithmetic, or bf16."""
    part = Part.EXPERTS if ffn.has_experts else Part.FFN
    return ACTIVATION_BYTES if ffn.formats[part].math in ("bf16", "fp16") else 1.0


def messages(
    attention: Replica, ffn: Replica, sent: Array, held: Array, attention_gpus: Array, workers: Array, gpus: Array,
    groups: Array, products: Array,
) -> Messages:  # fmt: skip
    """Messages of one micro-batch and layer, [rows].

    Parameters
    ----------
    sent : tokens times workers that each visits. held : tokens that one feed-forward GPU works on.
    attention_gpus : of all attention workers. workers, gpus, groups : feed-forward workers, their GPUs, expert groups.
    products : seconds of the feed-forward block.
    """
    hidden = float(ffn.model.hidden)
    together = one_domain(attention, ffn, attention_gpus + workers * gpus)
    own = np.where(gpus > 1, held, 0.0)
    direct = held * workers * gpus / attention_gpus, held
    crossing = sent / attention_gpus, sent / (workers * gpus)

    def way(width: float) -> tuple[Array, Array, Array]:
        """Seconds of the message, occupation of the network, occupation of the worker's links."""
        row = hidden * width
        far = _across(attention, crossing[0] * row), _across(ffn, crossing[1] * row)
        handed, links = _inside(ffn, own * row, gpus, groups)
        if not together.any():
            seconds, network = np.maximum(far[0][0], far[1][0]) + handed, np.maximum(far[0][1], far[1][1])
            return np.asarray(seconds), np.asarray(network), links
        near = _beside(attention, direct[0] * row), _beside(ffn, direct[1] * row)
        seconds = np.where(together, np.maximum(near[0][0], near[1][0]), np.maximum(far[0][0], far[1][0]) + handed)
        network = np.where(together, np.maximum(near[0][1], near[1][1]), np.maximum(far[0][1], far[1][1]))
        return np.asarray(seconds), np.asarray(network), np.where(together, 0.0, links)

    dispatch, to_ffn, gathered = way(dispatch_bytes(ffn))
    combine, back, scattered = way(ACTIVATION_BYTES)
    links = gathered + scattered
    fused = np.where(groups < gpus, _FUSED * np.minimum(links, products), 0.0) / np.maximum(links, 1e-30)
    dispatch = dispatch - fused * gathered + _graph_stop(attention)
    combine = combine - fused * scattered + _graph_stop(ffn)
    return Messages(dispatch, combine, to_ffn, back, links)


def _graph_stop(sender: Replica) -> float:
    """Seconds by which a message leaves later because the sender's captured graphs stop for it."""
    return 0.0 if sender.engine.exchange_in_graph else 0.5 * sender.engine.exchange_start


def one_domain(attention: Replica, ffn: Replica, gpus: Array) -> Array:
    """Whether both sides share one scale-up domain."""
    same = attention.accelerator.id == ffn.accelerator.id
    return np.asarray(same & (gpus <= ffn.topology.domain_size))


def _across(replica: Replica, message: Array) -> tuple[Array, Array]:
    """Seconds of a message over the NIC of one GPU, and for how long it occupies it."""
    links: dict[str, Any] = {"topology": replica.topology, "efficiency": replica.efficiency}
    occupied = link_seconds(message / _MANY_TO_MANY, across=True, **links)
    return np.maximum(point_to_point_seconds(message, across=True, **links), occupied), occupied


def _beside(replica: Replica, message: Array) -> tuple[Array, Array]:
    """The same inside a domain, to all of its other GPUs."""
    links: dict[str, Any] = {"topology": replica.topology, "efficiency": replica.efficiency}
    domain = np.full_like(message, float(replica.topology.domain_size))
    return all_to_all_seconds(message, domain, **links), link_seconds(message, across=False, **links)


def _inside(ffn: Replica, message: Array, gpus: Array, groups: Array) -> tuple[Array, Array]:
    """Bring ``message`` bytes to every GPU of a worker that work there: seconds, occupation of its links."""
    links: dict[str, Any] = {"topology": ffn.topology, "efficiency": ffn.efficiency}
    gathered, routed = all_gather_seconds(message, gpus, **links), all_to_all_seconds(message, gpus, **links)
    arriving = message * (gpus - 1.0) / gpus
    return np.where(groups >= gpus, routed, gathered), link_seconds(arriving, across=False, **links)
