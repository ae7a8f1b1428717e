"""Why no split of two pools works: the ledger's lines of those that fell out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from planner.job.job import Job
from planner.job.slo import Slo
from planner.search.candidates import Family
from planner.search.pools import DecodePool, PrefillPool, name_of, too_slow
from planner.search.rate_matching import Matches, best_rate
from planner.search.reject import Rejected, Rejections
from planner.search.split_metrics import missed_by
from planner.serving.decode import DecodeTable
from planner.serving.layout import BoolArray, Layouts
from planner.serving.lengths import Lengths
from planner.serving.memory import memory
from planner.units import format_bytes


def record_pair(prefill: PrefillPool, decode: DecodePool, job: Job, rejections: Rejections) -> None:
    """No match of two pools reaches the limits or the rate even by its bound: say which is missed."""
    names = f"prefill {prefill.supply.accelerator.id}, decode {decode.supply.accelerator.id}"
    pairs, asked = len(prefill.gpus) * len(decode.gpus), job.workload.rate
    together = prefill.gpus[:, None] + decode.gpus[None, :]
    allowed = _side_by_side(prefill, decode)
    if not allowed.any():
        need, have = f"{together.min():.0f} GPUs for a replica of each", f"{prefill.available}"
        excess = float(together.min() / prefill.available - 1)
        rejections.add(Rejected("fleet too small for a split", names, need, have, excess), pairs)
        return
    price, priced = prefill.supply.price, decode.price
    if job.budget is not None and price is not None and priced is not None:
        cost = float((prefill.gpus[:, None] * price + priced[None, :])[allowed].min())
        if cost > job.budget:
            need, have = f"${cost:,.2f}/h for a replica of each", f"${job.budget:,.2f}/h"
            rejections.add(Rejected("fleet too dear to split", names, need, have, cost / job.budget - 1), pairs)
            return
    most = 0.0 if asked is None else best_rate(prefill, decode, job)
    if asked is None or most <= 0:
        need, have = "a prompt computed and moved within the limits", "no pair of layouts that does"
        rejections.add(Rejected("split misses ttft even when idle", names, need, have, 1.0), pairs)
        return
    need, have = f"{asked:.4g} requests/s from the fleet", f"{most:.4g} requests/s"
    rejections.add(Rejected("fleet too small to split", names, need, have, asked / most - 1), pairs)


def _side_by_side(prefill: PrefillPool, decode: DecodePool) -> BoolArray:
    """Whether the fleet has the GPUs for one replica of each layout [prefill layouts, decode layouts]."""
    allowed = np.ones((len(prefill.gpus), len(decode.gpus)), dtype=bool)
    for supply, available, gpus in decode.uses:
        if supply.accelerator.id == prefill.supply.accelerator.id:
            allowed &= prefill.gpus[:, None] + gpus[None, :] <= available
    return allowed


def record_missed(groups: list[Matches], job: Job, rejections: Rejections) -> None:
    """Bounds promised what no exact evaluation kept: say what the most promising match of two pools misses."""
    free = job.workload.rate is None and job.workload.concurrency is None
    for group in groups:
        names = f"prefill {group.prefill.supply.accelerator.id}, decode {group.decode.supply.accelerator.id}"
        load = "even when idle" if free else "at this load"
        miss = None if free else missed_by(group.rows(np.array([group.bound.argmin()])), job)
        miss = miss or Rejected("", "", "a limit less tight", "no match that keeps it", 1.0)
        rejections.add(replace(miss, reason=f"split misses a limit {load}", candidate=names), len(group.bound))


def record_no_room(family: Family, kept: PrefillPool | None, rejections: Rejections) -> None:
    """Layouts that hold the model, but not the larger iterations of a prefill worker beside it."""
    there = set() if kept is None else set(kept.family.layouts)
    lost = [layout for layout in family.layouts if layout not in there]
    if not lost:
        return
    replica, lengths = family.replica.prefilling, family.lengths
    budget = memory(replica, Layouts.of(lost, column=False), Lengths(lengths.isl, 1.0, lengths.cached))
    need = np.broadcast_to(budget.capacity - budget.room + budget.longest, (len(lost),))
    tokens = f"{replica.engine.chunk_tokens:,.0f} prompt tokens"
    for layout, size in zip(lost, need, strict=True):
        asked = f"{format_bytes(size)} per GPU for weights, reserve, a prompt and iterations of {tokens}"
        excess = float(size / budget.capacity - 1)
        name, have = f"prefill {name_of(family, layout)}", format_bytes(budget.capacity)
        rejections.add(Rejected("does not fit in memory as a prefill worker", name, asked, have, excess))


def record_slow(family: Family, slo: Slo, rejections: Rejections) -> None:
    """No layout decodes even one request within the limits on TPOT and end-to-end time."""
    alone = DecodeTable.of(family.replica, Layouts.of(family.layouts, column=False), 1.0, family.lengths).alone
    fastest = family.layouts[int(alone.argmin())]
    near = too_slow("", f"decode {name_of(family, fastest)}", float(alone.min()), slo, family.lengths)
    rejections.add(near, len(family.layouts))
