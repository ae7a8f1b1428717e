"""Decode replicas that are split between attention and feed-forward workers, as one more kind of decode pool.

A worker is one node of a GPU type: tp * attention_dp attention GPUs, or feed-forward GPUs that hold their share of the
experts. One to four of each and two to four micro-batches make a replica; prompts come from a prefill pool, as in any
split. Both sides are of one GPU type here; ``estimate`` takes two.
"""

from __future__ import annotations

from itertools import product

import numpy as np

from planner.job.slo import Slo
from planner.search.candidates import Family
from planner.search.pools import DecodePool, largest_batch
from planner.search.reject import Rejected, Rejections
from planner.search.supply import Supply
from planner.serving.afd import AttentionFfn, Workers, attention_half, split_problem
from planner.serving.decode import decode_rate
from planner.serving.ffn_worker import ffn_half, worker_problem
from planner.serving.layout import Layout, Layouts
from planner.serving.legality import shape_problem
from planner.serving.lengths import Lengths
from planner.serving.memory import memory
from planner.serving.pd import Role
from planner.serving.replica import Replica

_WORKERS = (1, 2, 3, 4)
_MICRO_BATCHES = (2, 3, 4)


def attention_ffn_pool(
    supply: Supply, available: int, family: Family, slo: Slo, lengths: Lengths, rejections: Rejections
) -> DecodePool | None:
    """Every legal number of workers at its largest batch within the TPOT limit; None where there is none."""
    replica = family.replica
    name = f"{supply.accelerator.id} {replica.weights}"
    problem = split_problem(replica.model)
    if problem is not None:
        rejections.add(Rejected(problem.reason, f"af {name}", problem.need, problem.have))
        return None
    rows = _counts(replica, available - supply.accelerator.gpus_per_node)
    if not rows:
        rejections.add(
            Rejected("no legal attention-FFN split", f"af {name}", "two nodes beside a prefill node", "less")
        )
        return None
    workers = Workers(*np.array(rows, dtype=float).T)
    split = AttentionFfn(replica, replica)
    layouts = [Layout(int(tp), int(n * dp)) for n, tp, dp, *_ in rows]
    role = Role(replica, Layouts.of(layouts, column=False), np.ones(len(rows)), (split, workers))
    budget = role.memory(lengths)
    slots = np.asarray(budget.slots)
    table = role.table(float(slots.max(initial=1.0)), lengths)
    alone, batch, possible = largest_batch(table, slots, slo, lengths)
    if not possible.any():
        near = Rejected(
            "attention-FFN split misses tpot or memory", f"af {name}", f"{alone.min() * 1e3:.4g} ms", "less"
        )
        rejections.add(near, len(rows))
        return None
    tpot = table.at(batch)
    rate = np.where(possible, decode_rate(role.layouts, batch, tpot, lengths), 0.0)
    kept = [int(i) for i in np.flatnonzero(possible)]
    few = _family(family, [layouts[i] for i in kept])
    blocks = (split, workers.rows(kept))
    held = budget.rows(kept, len(rows))
    return DecodePool(
        supply, available, few, batch[kept], tpot[kept], rate[kept], alone[kept], table.rows(kept), held, blocks
    )  # fmt: skip


def _family(family: Family, layouts: list[Layout]) -> Family:
    columns = Layouts.of(layouts)
    held = memory(attention_half(family.replica), columns, family.lengths)
    return Family(family.replica, tuple(layouts), columns, held, family.lengths)


def _counts(replica: Replica, gpus: int) -> list[tuple[int, ...]]:
    """Rows of Workers that the model's shape and the fleet allow."""
    node = replica.accelerator.gpus_per_node
    attention, blocks = attention_half(replica).model, ffn_half(replica).model
    widths = [tp for tp in (1, 2, 4, 8) if node % tp == 0 and shape_problem(attention, Layout(tp)) is None]
    found: list[tuple[int, ...]] = []
    for n_a, n_f, tp, m in product(_WORKERS, _WORKERS, widths, _MICRO_BATCHES):
        ep = node if replica.has_experts else 1
        legal = (n_a + n_f) * node <= gpus and worker_problem(blocks, node, ep) is None
        if legal:
            found.append((n_a, tp, node // tp, n_f, ep, node, m))
    return found
