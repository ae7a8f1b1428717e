"""What a serving engine adds to the arithmetic: batching rules, memory policy, overheads.

Profiles are data (``hardware_catalog/engines``): ``default.toml`` holds what engines share, the file of an
engine only its departures, so that a new engine or version touches no Python file.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from planner.catalog.files import catalog_root, merged
from planner.cost.collective import USUAL_REDUCE, ReduceKernel
from planner.errors import InputError, UnknownNameError
from planner.job.tuning import Tuning
from planner.units import GIB, Bytes, Seconds


@dataclass(frozen=True, slots=True)
class Engine:
    """A serving engine as the cost of running it. Times in seconds, sizes in bytes.

    Attributes
    ----------
    policy : scheduling rules that the simulation follows, see planner/simulation/settings.py.
    prefill : "mixed" (chunks share iterations with decodes) or "exclusive" (a prefill iteration stops decoding).
    chunk_tokens : most tokens in one iteration.
    max_sequences : most running sequences per attention rank.
    utilization : share of usable memory that the engine takes; with ``of_free`` the share of what weights leave.
    utilization_ceiling : how far operators raise that share when weights leave little room for the cache.
    kv_follows_weights, kv_fp8_beside_fp4_units : which cache precision comes unasked, see serving/precision.py.
    step, sequence : host time per iteration, and per running sequence in it.
    grows : KV blocks are taken as a request grows (and preempted when they run out); else its full length is reserved.
    layer_gap, latent_gap, recurrent_gap, sparse_gap, moe_gap : idle time between kernels, per layer of that kind.
    quantise_gap : each further kernel that quantises the input of a block-scaled 8-bit product.
    dense_slowdown, attention_slowdown, expert_slowdown, collective_slowdown : time of a kernel inside an engine over
        that of the same kernel in a benchmark loop (cold caches, sustained clocks, neighbours).
    chunk_slowdown : time of an iteration that carries prompts over that of its kernels: shapes change from one to the
        next, so that no captured graph or tuned tile fits, and clocks fall under dense work.
    collective_wait : seconds that the ranks of a collective wait for the last one, per doubling of the ranks.
    evenness : how evenly tokens choose experts, see cost/moe.py.
    context_exchange : how context-parallel ranks get each other's keys and values: "gather" before they attend, or
        "ring" while they do.
    communication_overlap, two_batch_overlap : what of the messages is hidden, see serving/overlap.py.
    redundant_experts : further copies of busy experts on each expert-parallel rank.
    decode_tokens : most tokens that an attention rank can send to experts in one decode iteration: the buffers are made
        for so many. 0 for as many as it holds.
    expert_imbalance : tokens of the busiest expert-parallel rank over the mean where that is known; 0 derives it.
    offset : front-end time before the first token; decode_steps : iterations before the client sees it, of which it
        waits the half of ``receive_interval`` for the scheduler to look at its queue, since that many pass between
        two looks.
    burst_rounds : rounds of a closed-loop test over which its opening burst is averaged in a mean TTFT.
    reduce_kernel : how the engine's own all-reduce departs from the usual one, see cost/collective.py.
    expert_exchange : "dispatch" sends tokens to their experts (two kernels that start in ``exchange_start``), "fastest"
        takes gather and reduce-scatter where that is less. ``exchange_in_graph``: captured graphs of decode iterations
        hold these kernels; else the graph stops for them.
    cache_math : attention of prompts runs in the type of the cache, so an fp8 cache brings 8-bit matrix products.
    draft_step : host work of one drafting pass of speculative decoding.
    prompt_tokens : most tokens in one iteration of a prefill worker, see `prefilling`.
    handover_steps : decode iterations that a request passes in the queues of a decode worker before it runs.
    transfer_stages : whether a replica with pipeline stages can send or receive a KV cache.
    vendor, variants : the vendor of the GPUs it runs on (empty: any), and the fields that its kernels and published
        recipes change by vendor, with what every vendor has there; see `on`.
    transfer_pieces : how the KV cache of a prompt leaves a prefill worker: whole, by chunk or by layer; ``kv_transfer``
        the same as the user has it, and ``kv_compression`` its bytes over those on the wire (0: as they are).
    """

    id: str
    policy: str
    prefill: Literal["mixed", "exclusive"]
    chunk_tokens: float
    max_sequences: float
    block_tokens: int
    utilization: float
    utilization_ceiling: float
    of_free: bool
    reserve: Bytes
    grows: bool
    kv_follows_weights: bool
    kv_fp8_beside_fp4_units: bool
    step: Seconds
    sequence: Seconds
    layer_gap: Seconds
    latent_gap: Seconds
    recurrent_gap: Seconds
    sparse_gap: Seconds
    moe_gap: Seconds
    quantise_gap: Seconds
    dense_slowdown: float
    attention_slowdown: float
    expert_slowdown: float
    collective_slowdown: float
    chunk_slowdown: float
    collective_wait: Seconds
    evenness: float
    offset: Seconds
    decode_steps: float
    burst_rounds: float
    prompt_tokens: float = 0.0
    transfer_pieces: Literal["request", "chunk", "layer"] = "request"
    expert_exchange: Literal["dispatch", "fastest"] = "fastest"
    exchange_in_graph: bool = True
    exchange_start: Seconds = 0.0
    cache_math: bool = False
    transfer_stages: bool = True
    handover_steps: float = 0.0
    vendor: str = ""
    receive_interval: float = 1.0
    variants: tuple[tuple[str, tuple[tuple[str, Any], ...]], ...] = ()
    reduce_kernel: ReduceKernel = USUAL_REDUCE
    draft_step: Seconds = 0.0
    context_exchange: Literal["gather", "ring"] = "gather"
    communication_overlap: float = 0.0
    two_batch_overlap: bool = False
    redundant_experts: int = 0
    expert_imbalance: float = 0.0
    decode_tokens: float = 0.0
    kv_transfer: Literal["request", "chunk", "layer"] | None = None
    kv_compression: float = 0.0

    def on(self, vendor: str) -> Engine:
        """The engine on GPUs of ``vendor``: with the kernels and by the recipes it has there, else as everywhere."""
        variants = dict(self.variants)
        return replace(self, vendor=vendor, **dict(variants.get(vendor, variants.get("", ()))))

    @property
    def prefilling(self) -> Engine:
        """The engine of a prefill worker: no decode waits for its iterations to end, so they take more tokens."""
        return replace(self, chunk_tokens=max(self.chunk_tokens, self.prompt_tokens))

    def tuned(self, tuning: Tuning) -> Engine:
        """The profile with what the user knows better."""
        return replace(self, **tuning.model_dump(exclude_none=True))

    @property
    def tuning(self) -> Tuning:
        """What of the profile a user could have tuned; empty where nothing departs from plain engines."""
        values = {name: getattr(self, name) for name in Tuning.model_fields}
        return Tuning(**{name: value for name, value in values.items() if value})


def known_engines(extra: Sequence[Path] = ()) -> list[str]:
    """Ids of all engine profiles, the shared defaults left out."""
    return sorted(path.stem for path in _profiles(tuple(extra)).values() if path.stem != "default")


def load_engine(name: str, extra: Sequence[Path] = (), *, version: str = "", date: str = "") -> Engine:
    """Read the profile of an engine over the shared defaults. Raises UnknownNameError, InputError.

    Parameters
    ----------
    version, date : of the software (``0.5.4``; ``2024-06`` or longer), empty for current. A profile lists eras of older
        software that behave otherwise; the date decides, and the version where there is none.
    """
    return _load(name.lower(), tuple(extra), version, date)


def _profiles(extra: tuple[Path, ...]) -> Mapping[str, Path]:
    found: dict[str, Path] = {}
    for folder in (catalog_root("hardware_catalog"), *extra):
        for path in sorted((folder / "engines").glob("*.toml")):
            found[path.stem] = path
    return found


@lru_cache(maxsize=64)
def _load(name: str, extra: tuple[Path, ...], version: str, date: str) -> Engine:
    profiles = _profiles(extra)
    if name not in profiles:
        raise UnknownNameError("engine", name, profiles, listing="planner catalog engines")
    values: dict[str, Any] = {}
    old: dict[str, Any] = {}
    for stem in ("default", name):
        data = _read(profiles[stem])
        eras = [era for era in data.pop("era", []) if _of_era(era, name, version, date)]
        for layer in (data, *eras):
            values = merged(values, layer)
        for era in eras:
            old = merged(old, era)
    vendors = values.pop("vendor", {})
    try:
        by_vendor = {vendor: _engine(name, merged(values, _except(of, old))) for vendor, of in vendors.items()}
        return _with_variants(_engine(name, values), by_vendor)
    except KeyError as missing:
        raise InputError(f"engine profile {name!r}: no value for {missing}", hint=str(profiles[name])) from None


def _except(departures: Mapping[str, Any], old: Mapping[str, Any]) -> dict[str, Any]:
    """What departs on a vendor's GPUs, less what old software sets: the departures are those of today's."""
    return {
        section: {key: value for key, value in table.items() if key not in old.get(section, {})}
        for section, table in departures.items()
    }


def _with_variants(engine: Engine, by_vendor: Mapping[str, Engine]) -> Engine:
    """The engine, which knows what it is on GPUs of each vendor."""
    known = {"": engine, **by_vendor}
    names = [f.name for f in fields(Engine) if len({getattr(e, f.name) for e in known.values()}) > 1]
    variants = tuple((vendor, tuple((name, getattr(e, name)) for name in names)) for vendor, e in known.items())
    return replace(engine, variants=variants)


def _of_era(era: Mapping[str, Any], engine: str, version: str, date: str) -> bool:
    """Whether software of ``version`` or ``date`` is of an era: dates to ``until``, else versions below ``below``.

    ``below`` is a version, or one for each engine: numbers of different engines do not compare.
    """
    if date:
        return date[: len(era["until"])] <= str(era["until"])
    below = era["below"]
    limit = below.get(engine) if isinstance(below, dict) else below
    numbers = _version_numbers(version)
    return bool(numbers) and limit is not None and numbers < _version_numbers(str(limit))


def _version_numbers(version: str) -> tuple[int, ...]:
    match = re.match(r"v?(\d+(?:\.\d+)*)", version)
    return tuple(int(part) for part in match[1].split(".")) if match else ()


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as problem:
        raise InputError(f"engine profile {path.name}: {problem}") from None


def _engine(name: str, data: dict[str, dict[str, Any]]) -> Engine:
    batching, memory, overhead, first = (
        data["batching"],
        data["memory"],
        data["overhead"],
        data["first_token"],
    )
    kernels = data["kernels"]
    return Engine(
        id=name,
        policy=str(batching["policy"]),
        prefill=batching["prefill"],
        chunk_tokens=float(batching["chunk_tokens"]),
        max_sequences=float(batching["max_sequences"]),
        block_tokens=int(batching["block_tokens"]),
        utilization=float(memory["utilization"]),
        utilization_ceiling=float(memory["utilization_ceiling"]),
        of_free=bool(memory.get("of_free", False)),
        reserve=memory["reserve_gib"] * GIB,
        grows=bool(memory["grows"]),
        kv_follows_weights=bool(memory["kv_follows_weights"]),
        kv_fp8_beside_fp4_units=bool(memory["kv_fp8_beside_fp4_units"]),
        step=overhead["step_us"] * 1e-6,
        sequence=overhead["sequence_us"] * 1e-6,
        layer_gap=overhead["layer_gap_us"] * 1e-6,
        latent_gap=overhead["latent_gap_us"] * 1e-6,
        recurrent_gap=overhead["recurrent_gap_us"] * 1e-6,
        sparse_gap=overhead["sparse_gap_us"] * 1e-6,
        moe_gap=overhead["moe_gap_us"] * 1e-6,
        quantise_gap=overhead["quantise_gap_us"] * 1e-6,
        dense_slowdown=float(kernels["dense_slowdown"]),
        attention_slowdown=float(kernels["attention_slowdown"]),
        expert_slowdown=float(kernels["expert_slowdown"]),
        collective_slowdown=float(kernels["collective_slowdown"]),
        chunk_slowdown=float(kernels["chunk_slowdown"]),
        collective_wait=kernels["collective_wait_us"] * 1e-6,
        evenness=float(kernels["expert_evenness"]),
        offset=first["offset_ms"] * 1e-3,
        decode_steps=float(first["decode_steps"]),
        receive_interval=float(first["receive_interval"]),
        burst_rounds=float(first["burst_rounds"]),
        prompt_tokens=float(data["transfer"]["prompt_tokens"]),
        transfer_pieces=data["transfer"]["pieces"],
        handover_steps=float(data["transfer"]["handover_steps"]),
        transfer_stages=bool(data["transfer"]["stages"]),
        context_exchange=data["context"]["exchange"],
        expert_exchange=data["experts"]["exchange"],
        exchange_in_graph=bool(data["experts"]["exchange_in_graph"]),
        exchange_start=data["experts"]["exchange_start_us"] * 1e-6,
        cache_math=bool(kernels["attention_in_cache_type"]),
        reduce_kernel=ReduceKernel(float(kernels["two_phase_reduce"]), float(kernels["reduce_wire_bits"])),
        draft_step=overhead["draft_step_us"] * 1e-6,
        communication_overlap=float(kernels["communication_overlap"]),
        two_batch_overlap=bool(data["experts"]["two_batch_overlap"]),
        redundant_experts=int(data["experts"]["redundant"]),
        expert_imbalance=float(data["experts"]["imbalance"]),
        decode_tokens=float(data["experts"]["decode_tokens"]),
    )
