"""What speculation buys a pool, draft length by draft length, and where it stops paying."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from planner.api import Catalogs
from planner.job.job import Job
from planner.job.speculating import Speculating
from planner.plan import Pool
from planner.search.candidates import lengths_of
from planner.serving.afd import AttentionFfn, Workers
from planner.serving.decode import decode_seconds
from planner.serving.drafting import Drafting
from planner.serving.layout import Array, Layouts, floats
from planner.serving.memory import memory
from planner.serving.replica import Replica
from planner.serving.speculation import LENGTHS
from planner.simulation.replay import layout_of

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


@dataclass(frozen=True, slots=True)
class Decoding:
    """A pool with one draft: ``seconds`` per output token at batches per attention rank, ``slots`` of a rank."""

    draft: str
    tokens_per_step: float
    slots: float
    seconds: Callable[[ArrayLike], Array]


Choices = Callable[[int], Decoding]
"""The same pool at any draft length, 0 included."""


def choices(
    pool: Pool, plain: Replica, job: Job, catalogs: Catalogs, blocks: tuple[AttentionFfn, Workers] | None = None
) -> Choices | None:  # fmt: skip
    """A pool as it would decode at each draft length; None where nothing was asked.

    Parameters
    ----------
    plain : the replica without a draft. blocks : for attention workers, both sides of the split, without a draft too.
    """
    drafting, lengths = _drafting(pool, job, catalogs), lengths_of(job.workload)
    if drafting is None:
        return None

    def drafted(replica: Replica, length: int) -> Replica:
        return replace(replica, speculation=drafting.speculation(replica, length)) if length else replica

    def whole(length: int) -> Decoding:
        replica, layout = drafted(plain, length), Layouts.of([layout_of(pool)], column=False)
        slots = float(memory(replica, layout, lengths).slots[0])
        return Decoding(
            _name(replica), replica.tokens_per_step, slots,
            lambda batch: decode_seconds(replica, layout, batch, lengths),
        )  # fmt: skip

    def split(length: int) -> Decoding:
        assert blocks is not None
        workers = blocks[1]
        both = AttentionFfn(drafted(blocks[0].attention, length), drafted(blocks[0].ffn, length))
        held, others = both.memories(workers, lengths)
        slots = float(held.slots[0]) if others.fits[0] else 0.0
        return Decoding(
            _name(both.attention), both.attention.tokens_per_step, slots,
            lambda batch: both.token_seconds(workers, floats(batch) * workers.ranks, lengths),
        )  # fmt: skip

    return whole if blocks is None else split


def draft_rows(pool: Pool, at: Choices) -> list[dict[str, Any]]:
    """Seconds per token of a pure decode at the running batch, for every draft length; the length in use is marked."""
    used = pool.speculation.tokens if pool.speculation else 0
    rows: list[dict[str, Any]] = []
    for length in sorted({0, used, *LENGTHS}):
        found = at(length)
        tpot = float(np.ravel(found.seconds(pool.running_batch))[0])
        rows.append(
            {
                "draft": found.draft + (" (in use)" if length and length == used else ""),
                "tokens/step": round(found.tokens_per_step, 3),
                "step ms": round(tpot * found.tokens_per_step * 1e3, 3),
                "ms/token": round(tpot * 1e3, 3),
                "against none": f"{rows[0]['ms/token'] / (tpot * 1e3) - 1:+.1%}" if rows else "-",
                "requests that fit": int(found.slots),
            }
        )
    return rows


def stops_paying(pool: Pool, at: Choices, most: float) -> str:
    """The batch per attention rank, of at most ``most``, beyond which no draft length is faster than none."""
    batches = np.unique(np.round(np.geomspace(1.0, max(most, 2.0), _BATCHES)))
    best = np.min([at(length).seconds(batches) for length in LENGTHS], axis=0)
    pays = best < at(0).seconds(batches)
    if not pays.any():
        return "no draft length pays at any batch"
    if pays.all():
        return f"a draft pays at every batch up to {batches[-1]:.0f} requests per attention rank"
    last = batches[pays][-1]
    return f"drafts stop paying beyond {last:.0f} requests per attention rank, {pool.running_batch:.0f} run"


def _name(replica: Replica) -> str:
    how = replica.speculation
    return "none" if how is None else f"{how.method} {how.tokens}"


def _drafting(pool: Pool, job: Job, catalogs: Catalogs) -> Drafting | None:
    """How the pool drafts, or would have: what the plan holds goes before what was asked."""
    how = pool.speculation
    if pool.role == "prefill" or pool.layout.pp > 1:
        return None
    if how is not None:
        return catalogs.drafting(Speculating(method=how.method, model=how.draft, acceptance=tuple(how.acceptance)))
    return catalogs.drafting(job.speculate)
