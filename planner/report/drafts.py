"""What speculation buys a pool, draft length by draft length, and where it stops paying."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from planner.api import Catalogs
from planner.job.job import Job
from planner.job.speculating import Speculating
from planner.plan import Pool
from planner.search.candidates import lengths_of
from planner.serving.decode import decode_seconds
from planner.serving.drafting import Drafting
from planner.serving.layout import Layout, Layouts
from planner.serving.memory import memory
from planner.serving.replica import Replica
from planner.serving.speculation import LENGTHS

_BATCHES = 49


def speculation_text(how: Mapping[str, Any] | None) -> str:
    """One line of a draft and of what its acceptance rests on."""
    if how is None:
        return "no drafts: none of the lengths tried gives more output at this load"
    rates = ", ".join(f"{rate:g}" for rate in how["acceptance"])
    band = how["acceptance_band"]
    known = "as given" if band is None else f"assumed, {band[0]:g} to {band[1]:g} seen"
    model = f" by {how['draft']}" if how["draft"] else ""
    return (
        f"drafts {how['method']} {how['tokens']}{model}: {how['tokens_per_step']:.2f} tokens per step at acceptance "
        f"{rates} ({known})"
    )


def draft_rows(pool: Pool, plain: Replica, job: Job, catalogs: Catalogs) -> list[dict[str, Any]]:
    """Seconds per token of a pure decode at the running batch, for every draft length; the length in use is marked.

    Parameters
    ----------
    plain : the replica without a draft.
    """
    drafting = _drafting(pool, job, catalogs)
    if drafting is None:
        return []
    layout = Layouts.of([_layout(pool)], column=False)
    used = pool.speculation.tokens if pool.speculation else 0
    rows: list[dict[str, Any]] = []
    for length in sorted({0, used, *LENGTHS}):
        how = drafting.speculation(plain, length) if length else None
        replica = replace(plain, speculation=how)
        tpot = float(decode_seconds(replica, layout, pool.running_batch, lengths_of(job.workload))[0])
        slots = float(memory(replica, layout, lengths_of(job.workload)).slots[0])
        rows.append(
            {
                "draft": "none" if how is None else f"{how.method} {length}" + (" (in use)" if length == used else ""),
                "tokens/step": round(replica.tokens_per_step, 3),
                "step ms": round(tpot * replica.tokens_per_step * 1e3, 3),
                "ms/token": round(tpot * 1e3, 3),
                "against none": f"{rows[0]['ms/token'] / (tpot * 1e3) - 1:+.1%}" if rows else "-",
                "requests that fit": int(slots),
            }
        )
    return rows


def stops_paying(pool: Pool, plain: Replica, job: Job, catalogs: Catalogs) -> str | None:
    """The batch per attention rank beyond which no draft length is faster than none; None where nothing was asked."""
    drafting = _drafting(pool, job, catalogs)
    if drafting is None:
        return None
    layout, lengths = Layouts.of([_layout(pool)], column=False), lengths_of(job.workload)
    batches = np.unique(np.round(np.geomspace(1.0, max(plain.engine.max_sequences, 2.0), _BATCHES)))
    alone = decode_seconds(plain, layout, batches, lengths)
    best = np.min(
        [
            decode_seconds(replace(plain, speculation=drafting.speculation(plain, n)), layout, batches, lengths)
            for n in LENGTHS
        ],
        axis=0,
    )
    pays = best < alone
    if not pays.any():
        return "no draft length pays at any batch"
    if pays.all():
        return f"a draft pays at every batch up to {batches[-1]:.0f} requests per attention rank"
    last = batches[pays][-1]
    return f"drafts stop paying beyond {last:.0f} requests per attention rank, {pool.running_batch:.0f} run"


def _layout(pool: Pool) -> Layout:
    x = pool.layout
    return Layout(x.tp, x.attention_dp, x.pp, x.ep, x.cp)


def _drafting(pool: Pool, job: Job, catalogs: Catalogs) -> Drafting | None:
    """How the pool drafts, or would have: what the plan holds goes before what was asked."""
    how = pool.speculation
    if pool.role == "prefill" or pool.layout.pp > 1:
        return None
    if how is not None:
        return catalogs.drafting(
            Speculating(method=how.method, model=how.draft, acceptance=tuple(how.acceptance))
        )
    return catalogs.drafting(job.speculate)
