"""Messages of every layer: sums over tensor-parallel ranks, hops between pipeline stages."""

from __future__ import annotations

from typing import Any

import numpy as np

from planner.cost.collective import all_reduce_seconds, point_to_point_seconds
from planner.serving.context import ACTIVATION_BYTES
from planner.serving.forward import Pass
from planner.serving.layout import Array


def add_all_reduce(p: Pass, times: Array) -> None:
    """Sum the partial outputs of a row-cut matrix over the tp ranks; tp = 1 sends nothing."""
    if np.any(p.layouts.tp > 1):
        message = p.tokens * p.hidden * ACTIVATION_BYTES
        seconds = all_reduce_seconds(
            message, p.layouts.tp, topology=p.replica.topology, efficiency=p.replica.efficiency,
            custom_kernel=p.replica.engine.reduce_kernel,
        )  # fmt: skip
        p.add("all-reduce", p.waited(seconds, p.layouts.tp), times)


def add_hops(p: Pass) -> None:
    """Hidden states hop from stage to stage (tokens are cut over the tp ranks that send in parallel)."""
    hops = p.layouts.pp - 1
    if not np.any(hops):
        return
    message = p.tokens * p.hidden * ACTIVATION_BYTES / p.layouts.tp
    links: dict[str, Any] = {"topology": p.replica.topology, "efficiency": p.replica.efficiency}
    seconds = np.where(
        p.layouts.gpus > p.replica.topology.domain_size,
        point_to_point_seconds(message, across=True, **links),
        point_to_point_seconds(message, across=False, **links),
    )
    p.add("pipeline", seconds, hops)
