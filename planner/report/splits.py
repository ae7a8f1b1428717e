"""What the first token of a split plan waits for, and how busy its prefill pool and the links between its pools are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from planner.api import Catalogs, replica_of_pool
from planner.job.job import Job
from planner.plan import Plan
from planner.report.plans import pool_text
from planner.search.candidates import lengths_of
from planner.serving.layout import Array, Layout, Layouts
from planner.serving.pd import Role, paired
from planner.serving.transfer import TransferOptions, sent_bytes
from planner.simulation.replay import layout_of, workers_of


def first_token(plan: Plan, job: Job, catalogs: Catalogs) -> dict[str, Any]:
    """Milliseconds of the TTFT of a pd or af plan at the percentile of its limits, by what they pass for; bytes of a
    prompt's cache on the wire, how long they take, and the loads of the prefill pool and of the links on both sides."""
    sender, receiver = _roles(plan, job, catalogs)
    lengths = lengths_of(job.workload)
    pair = paired(sender, receiver, lengths)
    concurrency = job.workload.concurrency
    rate = np.array([plan.predicted.request_rate])
    state = pair.open(rate) if concurrency is None else pair.closed(np.array([float(concurrency)]))
    sending = state.link.sending
    return {
        "parts_ms": {name: _one(s) * 1e3 for name, s in state.first_token(job.slo.percentile).items()},
        "cache_bytes": _one(sent_bytes(sender.replica, receiver.replica, lengths.isl, TransferOptions())),
        "wire_ms": _one(sending.seconds) * 1e3,
        "load": {
            "prefill": _one(rate / sender.count / state.prefill.capacity),
            "sending links": _one(rate * sending.egress / state.link.ranks_sending),
            "receiving links": _one(rate * sending.ingress / state.link.ranks_receiving),
        },
    }


def first_token_text(plan: Plan, told: Mapping[str, Any], percentile: str) -> list[str]:
    """The same in sentences."""
    parts, load = told["parts_ms"], told["load"]
    terms = " + ".join(f"{ms:,.4g} {name}" for name, ms in parts.items() if ms >= 5e-4 * sum(parts.values()))
    return [
        f"TTFT {percentile} {sum(parts.values()):,.4g} ms = {terms}",
        f"the cache of a prompt, {told['cache_bytes'] / 1e6:,.4g} MB, takes {told['wire_ms']:,.3g} ms on the wire; "
        f"sending links are {load['sending links']:.0%} busy, receiving ones {load['receiving links']:.0%}",
        f"{pool_text(plan.pools[0])}: {load['prefill']:.0%} of the requests/s that it could carry without limits",
    ]


def _roles(plan: Plan, job: Job, catalogs: Catalogs) -> tuple[Role, Role]:
    replicas = [replica_of_pool(job.model, pool, catalogs) for pool in plan.pools]
    first, last = plan.pools[0], plan.pools[-1]
    sender = Role(replicas[0], _row(layout_of(first)), np.array([float(first.replicas)]))
    if plan.mode == "pd":
        return sender, Role(replicas[-1], _row(layout_of(last)), np.array([float(last.replicas)]))
    blocks = workers_of(plan, replicas)
    layout = Layout(last.layout.tp, int(blocks[1].ranks[0]))
    return sender, Role(replicas[-1], _row(layout), np.array([float(last.instances)]), blocks)


def _row(layout: Layout) -> Layouts:
    return Layouts.of([layout], column=False)


def _one(values: Array) -> float:
    return float(np.ravel(values)[0])
