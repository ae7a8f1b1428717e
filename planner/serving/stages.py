"""A replica whose pipeline stages stand on different GPU types, with a number of layers of their own.

Every stage is a replica of its layers alone: its kernels, its memory, its tensor-parallel group. The pipeline is paced
by the slowest stage: with S micro-batches in flight each of them, and so every request, gains a token in S times the
time of that stage, and what the other stages wait is booked as such.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from planner.cost.collective import point_to_point_seconds
from planner.serving.context import ACTIVATION_BYTES
from planner.serving.layout import Array, Layout, Layouts, floats
from planner.serving.replica import Replica, Stage
from planner.serving.work import Ledger, Work

WAITING = "waiting for the slowest stage"

Pass = Callable[[Replica, Layouts, Work], Ledger]


def staged_ledger(replica: Replica, work: Work, one_pass: Pass) -> Ledger:
    """Seconds in which a micro-batch passes all stages, and waits for the slowest one where others run beside it.

    Alone, fewer than one request on average, it waits for nobody: the sum of the stages. The host schedules once.
    """
    total = Ledger()
    times: list[Array] = []
    known: dict[tuple[object, ...], Ledger] = {}  # stages in the middle are often alike
    for stage, following in zip(replica.stages, (*replica.stages[1:], None), strict=True):
        alike = (stage.gpu, stage.tp, stage.replica.samples, *stage.replica.model.layers)
        if alike not in known:
            known[alike] = one_pass(stage.replica, stage.layouts, work)
        own = Ledger()
        for name, seconds in known[alike].seconds.items():
            if name != "host":
                own.add(name, seconds)
        if following is not None:
            own.add("pipeline", hop_seconds(stage, following, floats(work.sequences) + floats(work.chunk)))
        times.append(own.total)
        for name, seconds in own.seconds.items():
            total.add(name, seconds)
    slowest = np.max(np.stack(np.broadcast_arrays(*times)), axis=0)
    full = (floats(work.sequences) >= 1.0) | (floats(work.chunk) > 0)
    total.add(WAITING, np.where(full, len(times) * slowest - sum(times, start=np.zeros(1)), 0.0))
    total.add("host", next(iter(known.values())).seconds["host"])
    return total


def hop_seconds(sender: Stage, receiver: Stage, tokens: Array) -> Array:
    """Seconds to send the hidden states of ``tokens`` to the next stage, cut over the ranks that send side by side.

    Unlike GPUs stand in different nodes, so both NICs take part and the slower one counts.
    """
    pairs = min(sender.tp, receiver.tp)
    message = tokens * sender.replica.model.hidden * ACTIVATION_BYTES / pairs
    ends = (sender.replica, receiver.replica)
    together = sender.gpu == receiver.gpu and sender.tp + receiver.tp <= sender.replica.topology.domain_size
    options: dict[str, Any] = {"across": not together}
    seconds = [
        point_to_point_seconds(message, topology=r.topology, efficiency=r.efficiency, **options)
        * r.engine.collective_slowdown
        for r in ends
    ]
    return np.maximum(*seconds)


def staged_layout(stages: tuple[Stage, ...]) -> Layout:
    """The stages as one layout: their number, and the widest tensor-parallel group."""
    return Layout(tp=max(stage.tp for stage in stages), pp=len(stages))
