"""Decode replicas that are split between attention and feed-forward workers, as one more kind of decode pool.

A worker is one node of a GPU type: tp * attention_dp attention GPUs, or feed-forward GPUs that hold their share of the
experts; the two sides may be of different types. Up to eight of each and two to four micro-batches make a replica, and
every such number is evaluated; prompts come from a prefill pool, as in any split.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product

import numpy as np

from planner.job.slo import Slo
from planner.search.candidates import Family
from planner.search.pools import DecodePool, largest_batch, too_slow
from planner.search.reject import Rejected, Rejections
from planner.search.supply import Supply
from planner.serving.afd import AttentionFfn, Workers
from planner.serving.decode import decode_rate
from planner.serving.ffn_worker import worker_problem
from planner.serving.halves import attention_half, ffn_half, split_problem
from planner.serving.layout import Array, Layout, Layouts
from planner.serving.legality import shape_problem
from planner.serving.lengths import Lengths
from planner.serving.memory import memory
from planner.serving.pd import Role

_MOST_WORKERS = 8
_MICRO_BATCHES = (2, 3, 4)


Member = tuple[Supply, int, Family]


def attention_ffn_pools(
    members: Sequence[Member], slo: Slo, lengths: Lengths, rejections: Rejections
) -> Iterator[DecodePool]:
    """Both sides on one GPU type, or attention of every member with blocks on every other type and precision; both
    with the same draft, or with none."""
    sides: dict[tuple[str, str, str], Member] = {}
    for member in members:
        sides.setdefault(_side(member), member)
    for attention in members:
        gpu, weights, draft = _side(attention)
        for (other, precision, same), ffn in sides.items():
            if same == draft and (other != gpu or precision == weights):
                found = attention_ffn_pool(attention, ffn, slo, lengths, rejections)
                if found is not None:
                    yield found


def _side(member: Member) -> tuple[str, str, str]:
    replica = member[2].replica
    return member[0].accelerator.id, replica.weights, str(replica.speculation or "")


def attention_ffn_pool(
    attention: Member, ffn: Member, slo: Slo, lengths: Lengths, rejections: Rejections
) -> DecodePool | None:
    """Every legal number of workers at its largest batch within the TPOT limit; None where there is none."""
    supply, available, family = attention
    replica, blocks = family.replica, ffn[2].replica
    name = f"{supply.accelerator.id} {replica.weights}" + (f" {replica.speculation}" if replica.speculation else "")
    if supply.accelerator.id != ffn[0].accelerator.id:
        name = f"{name}, ffn {ffn[0].accelerator.id} {blocks.weights}"
    problem = split_problem(replica.model)
    if problem is not None:
        rejections.add(Rejected(problem.reason, f"af {name}", problem.need, problem.have))
        return None
    rows = _counts(attention, ffn)
    if not rows:
        rejections.add(
            Rejected("no legal attention-FFN split", f"af {name}", "a node for each side and one for prompts", "less")
        )
        return None
    workers = Workers(*np.array(rows, dtype=float).T)
    split = AttentionFfn(replica, blocks)
    layouts = [Layout(int(tp), int(n * dp)) for n, tp, dp, *_ in rows]
    role = Role(replica, Layouts.of(layouts, column=False), np.ones(len(rows)), (split, workers))
    budget = role.memory(lengths)
    slots = np.asarray(budget.slots)
    table = role.table(float(slots.max(initial=1.0)), lengths)
    alone, batch, possible = largest_batch(table, slots, replica, slo, lengths)
    if not possible.any():
        rejections.add(_nearest(f"af {name}", alone, slots, slo, lengths), len(rows))
        return None
    batch = table.settled(batch)
    tpot = table.at(batch)
    rate = np.where(possible, decode_rate(role.layouts, batch, tpot, lengths), 0.0)
    kept = [i for i in _leading(workers, rate, alone, slo) if possible[i]]
    few = _family(family, [layouts[i] for i in kept])
    own = (split, workers.rows(kept))
    held = budget.rows(kept, len(rows))
    return DecodePool(
        supply, available, few, batch[kept], tpot[kept], rate[kept], alone[kept], table.rows(kept), held, own, ffn[:2]
    )  # fmt: skip


def _nearest(name: str, alone: Array, slots: Array, slo: Slo, lengths: Lengths) -> Rejected:
    """Why no number of workers works: none holds the model and a request, or none is fast enough."""
    fits = np.broadcast_to(slots >= 1, alone.shape)
    if fits.any():
        return too_slow("attention-FFN split", name, float(alone[fits].min()), slo, lengths)
    return Rejected("attention-FFN split does not fit in memory", name, "room for all blocks and one request", "less")


def _leading(workers: Workers, rate: Array, alone: Array, slo: Slo) -> list[int]:
    """Of each number of workers the best row: cuts of attention and micro-batches that do not matter
    would otherwise fill the list with one plan in many guises."""
    best: dict[tuple[float, float], int] = {}
    faster = alone if slo.tpot is None and slo.e2e is None else -rate
    for i in range(len(rate)):
        counts = float(workers.attention[i]), float(workers.ffn[i])
        known = best.get(counts)
        if known is None or (faster[i], -rate[i]) < (faster[known], -rate[known]):
            best[counts] = i
    return sorted(best.values())


def _family(family: Family, layouts: list[Layout]) -> Family:
    columns = Layouts.of(layouts)
    held = memory(attention_half(family.replica), columns, family.lengths)
    return Family(family.replica, tuple(layouts), columns, held, family.lengths)


def _counts(attention: Member, ffn: Member) -> list[tuple[int, ...]]:
    """Rows of Workers that the model's shape and the fleet allow."""
    (first, available, family), (second, others, blocks) = attention, ffn
    node, box = first.accelerator.gpus_per_node, second.accelerator.gpus_per_node
    half = attention_half(family.replica).model
    widths = [tp for tp in (1, 2, 4, 8) if node % tp == 0 and shape_problem(half, Layout(tp)) is None]
    ep = box if blocks.replica.has_experts else 1
    if worker_problem(ffn_half(blocks.replica).model, box, ep) is not None:
        return []
    together = first.accelerator.id == second.accelerator.id

    def there(n_a: int, n_f: int) -> bool:
        if together:  # and a node for prompts
            return (n_a + n_f + 1) * node <= available
        return n_a * node <= available and n_f * box <= others

    most = range(1, _MOST_WORKERS + 1)
    counts = [(n_a, n_f) for n_a, n_f in product(most, most) if there(n_a, n_f)]
    return [(n_a, tp, node // tp, n_f, ep, box, m) for (n_a, n_f), tp, m in product(counts, widths, _MICRO_BATCHES)]
