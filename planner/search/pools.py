"""What one pool of a split can do, layout by layout, and which layouts are worth combining.

A prefill layout is what it costs (GPUs), what it carries (requests/s of a busy replica), how long one prompt takes and
how fast its cache leaves; a decode layout what it carries within the TPOT limit, how fast it decodes and receives. A
layout falls out when copies of another one on the same GPUs, a whole number of them, are at least as good in all of it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from planner.job.slo import Slo
from planner.search.candidates import Family
from planner.search.reject import Rejected
from planner.search.supply import Supply
from planner.serving.afd import AttentionFfn, Workers
from planner.serving.decode import DecodeTable, decode_rate
from planner.serving.latency import luck, slots_needed, z_score
from planner.serving.layout import Array, BoolArray, Layout, Layouts
from planner.serving.lengths import Lengths
from planner.serving.memory import Memory
from planner.serving.prefill import PrefillTimes, prefill_times
from planner.serving.replica import Replica
from planner.units import format_duration

_LOADS = np.concatenate([np.linspace(0.02, 0.9, 23), 1.0 - np.geomspace(0.08, 0.005, 9)])
_BISECTIONS = 40


@dataclass(frozen=True, slots=True)
class PrefillPool:
    """Layouts of one family that may compute prompts, [n]; ``times`` as columns [n, 1]."""

    supply: Supply
    available: int
    family: Family
    times: PrefillTimes

    @property
    def gpus(self) -> Array:
        """GPUs of a replica, [n]."""
        return gpus_of(self.family)

    @property
    def most(self) -> Array:
        """Replicas that the fleet allows, [n]."""
        return np.floor(self.available / self.gpus + 1e-9)

    @property
    def capacity(self) -> Array:
        """Requests/s of one busy replica, [n]."""
        return np.broadcast_to(self.times.capacity, (len(self.family.layouts), 1))[:, 0]

    def rates(self, counts: Array, slack: Array, statistic: str) -> Array:
        """Requests/s of one replica, [n, counts, d], at which wait and prefill use up ``slack`` seconds [n, d]."""
        load = _LOADS[None, None, :]
        rate = self.capacity[:, None, None] * load
        columns = self.times.rows(np.arange(len(self.gpus)), 2)
        wait, own = columns.wait_and_own(rate, counts[None, :, None], statistic)
        spent = wait + own
        fits = spent[:, :, :, None] <= slack[:, None, None, :]
        last = fits.cumprod(axis=2).sum(axis=2) - 1
        index = np.maximum(last, 0)
        return np.where(last >= 0, self.capacity[:, None, None] * _LOADS[index], 0.0)


@dataclass(frozen=True, slots=True)
class DecodePool:
    """Layouts of one family that may decode, [n], each at the largest batch that keeps the TPOT limit; with ``blocks``
    the layouts are those of all attention workers of a split together, and ``ffn`` where its feed-forward workers come
    from (GPUs of the same kind, or of another)."""

    supply: Supply
    available: int
    family: Family
    batch: Array
    tpot: Array
    rate: Array
    alone: Array
    table: DecodeTable
    memory: Memory
    blocks: tuple[AttentionFfn, Workers] | None = None
    ffn: tuple[Supply, int] | None = None

    @property
    def gpus(self) -> Array:
        """GPUs of a replica, [n]."""
        return gpus_of(self.family) if self.blocks is None else self.blocks[1].gpus

    @property
    def uses(self) -> list[tuple[Supply, int, Array]]:
        """GPU types of a replica: supply, GPUs available, GPUs in each replica [n]."""
        if self.blocks is None or self.ffn is None or self.ffn[0].accelerator.id == self.supply.accelerator.id:
            return [(self.supply, self.available, self.gpus)]
        workers = self.blocks[1]
        return [(self.supply, self.available, workers.attention_gpus), (*self.ffn, workers.ffn_side)]

    @property
    def most(self) -> Array:
        """Replicas that the fleet allows, [n]."""
        return np.asarray(np.min([np.floor(there / gpus + 1e-9) for _, there, gpus in self.uses], axis=0))

    @property
    def price(self) -> Array | None:
        """US dollars per hour of a replica, [n]; None when a price is unknown."""
        prices = [(supply.price, gpus) for supply, _, gpus in self.uses]
        known = [price * gpus for price, gpus in prices if price is not None]
        return np.asarray(sum(known)) if len(known) == len(prices) else None

    @property
    def power(self) -> Array:
        """Watts of a replica at the limits of its boards, [n]."""
        return np.asarray(sum(supply.accelerator.power * gpus for supply, _, gpus in self.uses))


def compatible(prefill: Replica, decode: Replica) -> bool:
    """Whether one can take over from the other: the same cache, and the same draft, whose cache travels too."""
    return prefill.kv == decode.kv and str(prefill.speculation) == str(decode.speculation)


def gpus_of(family: Family) -> Array:
    """GPUs of a replica of every layout."""
    return np.array([float(layout.gpus) for layout in family.layouts])


def prefill_pool(supply: Supply, available: int, family: Family, *, pruned: bool = True) -> PrefillPool | None:
    """Evaluate every layout as a prefill replica; ``pruned`` keeps those that no copies of another replace. None where
    the larger iterations of a prefill worker leave no layout room for a prompt."""
    times, shape = prefill_times(family.replica, family.columns, family.lengths), (len(family.layouts), 1)
    fitting = np.flatnonzero(np.broadcast_to(times.memory.fits, shape)[:, 0])
    if not fitting.size:
        return None
    family, times = family.only([family.layouts[i] for i in fitting]), times.rows(fitting, 1)
    if not pruned:
        return PrefillPool(supply, available, family, times)
    nics = np.array([float(layout.tp * layout.pp * layout.cp) for layout in family.layouts])
    kept = undominated(gpus_of(family), times.capacity[:, 0], [times.own(0.0, 1.0)[:, 0], -nics])
    return PrefillPool(supply, available, family.only([family.layouts[i] for i in kept]), times.rows(kept, 1))


def decode_pool(
    supply: Supply, available: int, family: Family, slo: Slo, lengths: Lengths, *, pruned: bool = True
) -> DecodePool | None:
    """Evaluate every layout as a decode replica at its largest allowed batch; None where no layout keeps the limit."""
    flat = Layouts.of(family.layouts, column=False)
    slots = np.broadcast_to(family.memory.slots, (len(family.layouts), 1))[:, 0]
    table = DecodeTable.of(family.replica, flat, float(slots.max()), lengths)
    alone, low, possible = largest_batch(table, slots, family.replica, slo, lengths)
    if not possible.any():
        return None
    low = table.settled(low)
    tpot = table.at(low)
    rate = np.where(possible, decode_rate(flat, low, tpot, lengths), 0.0)
    nics = np.array([float(layout.tp * layout.pp * layout.cp) for layout in family.layouts])
    good = undominated(gpus_of(family), rate, [alone, -nics]) if pruned else range(len(rate))
    kept = [i for i in good if possible[i]]
    few = family.only([family.layouts[i] for i in kept])
    held = family.memory.rows(kept, len(family.layouts))
    return DecodePool(
        supply, available, few, low[kept], tpot[kept], rate[kept], alone[kept], table.rows(kept), held
    )  # fmt: skip


def largest_batch(
    table: DecodeTable, slots: Array, replica: Replica, slo: Slo, lengths: Lengths
) -> tuple[Array, Array, BoolArray]:  # fmt: skip
    """TPOT of one request alone, the largest batch of a ``replica`` that keeps the TPOT limit, and where any does."""
    limit = _tpot_limit(slo, lengths)
    alone = table.alone

    def allowed(batch: Array) -> BoolArray:
        tpot = table.at(batch)
        slope = np.maximum(tpot - alone, 0.0) / np.maximum(batch, 1.0)
        lucky = luck(replica.tokens_per_step, replica.step_variance, tpot, lengths.osl)
        seen = tpot + z_score(slo.percentile) * np.hypot(np.sqrt(batch) * slope, lucky)
        return (slots_needed(batch, slo.percentile) <= slots) & (seen <= limit)

    low, high = np.full_like(slots, 0.02), slots.copy()
    possible = allowed(low)
    for _ in range(_BISECTIONS):
        middle = 0.5 * (low + high)
        ok = allowed(middle)
        low, high = np.where(ok, middle, low), np.where(ok, high, middle)
    return alone, low, possible


def too_slow(what: str, name: str, alone: float, slo: Slo, lengths: Lengths) -> Rejected:
    """The near miss of ``what`` decodes one request alone with ``alone`` seconds per token, which is too many."""
    need, have, limit = alone, _tpot_limit(slo, lengths), "tpot"
    if slo.e2e is not None and have != slo.tpot:
        need, have, limit = alone * float(lengths.decodes.ravel()[0]), slo.e2e, "e2e"
    asked, there = format_duration(need), f"a limit of {format_duration(have)}"
    return Rejected(f"{what} misses {limit} even when idle".strip(), name, asked, there, need / have - 1)


def _tpot_limit(slo: Slo, lengths: Lengths) -> float:
    """Seconds per token that the TPOT limit and the end-to-end limit leave."""
    by_e2e = np.inf if slo.e2e is None else slo.e2e / float(lengths.decodes.ravel()[0])
    return float(min(slo.tpot or np.inf, by_e2e))


def undominated(gpus: Array, rate: Array, smaller: list[Array]) -> list[int]:
    """Rows that no whole number of copies of another row replaces: as many GPUs or fewer, at least the rate, and no
    criterion of ``smaller`` larger. Of equal rows the first stays."""
    copies = np.floor(gpus[:, None] / gpus[None, :] + 1e-9)  # of column j in the GPUs of row i
    better = (copies >= 1) & (copies * rate[None, :] >= rate[:, None] * (1 - 1e-9))
    equal = gpus[:, None] == gpus[None, :]
    equal &= np.isclose(rate[:, None], rate[None, :], rtol=1e-9)
    for values in smaller:
        better &= values[None, :] <= values[:, None] * np.where(values[:, None] < 0, 1 - 1e-9, 1 + 1e-9)
        equal &= np.isclose(values[:, None], values[None, :], rtol=1e-9)
    order = np.arange(len(gpus))
    beaten = better & np.where(equal, order[None, :] < order[:, None], True)
    np.fill_diagonal(beaten, False)
    return [int(i) for i in np.flatnonzero(~beaten.any(axis=1))]


def name_of(family: Family, layout: Layout) -> str:
    """How the ledger calls one side of a split."""
    return f"{family.replica.accelerator.id} {layout} {family.replica.weights}"
