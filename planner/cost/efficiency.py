"""How close kernels come to the datasheet: one small set of constants per accelerator family, kept as data.

``hardware_catalog/efficiencies/pool.toml`` holds constants that all families share; ``<family>.toml`` holds
only departures that left-out measurements justify. Forms and symbols: COST_MODEL.md of the design folder
(points 1 to 6); the values are fitted by ``benchmarks/fit_operators.py``.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, TypeVar

from planner.catalog.files import catalog_root, merged
from planner.units import Seconds


@dataclass(frozen=True, slots=True)
class GemmConstants:
    """Dense matrix product of one math type (COST_MODEL.md point 1).

    Attributes
    ----------
    compute : share of peak FLOP/s inside a large tile at 1.4 TFLOP/s (16-bit) per watt, in (0, 1].
    power : exponent; compute falls with (peak FLOP/s per watt)**-power, because clocks are power-limited.
    memory : share of peak memory bandwidth, in (0, 1].
    grain : elements; a tile of harmonic size a = tm*tn/(tm+tn) reaches a/(a+grain) of ``compute``.
    depth : elements of k that prologue and epilogue of a tile cost.
    wave : share of a partial last wave that is lost, in [0, 1].
    overlap : extra time where compute and memory take equally long, as a share; 0 = perfect overlap.
    fill : seconds**0.5; filling the memory pipeline costs fill*sqrt(memory seconds).
    launch : seconds of one launch in a stand-alone loop.
    quantise : seconds of launching the activation quantisation kernel; 0 for 16-bit math.
    quantise_memory : share of memory bandwidth that the quantisation kernel reaches.
    dequantise : slowdown of compute when narrow weights are widened in registers, at least 1.
    """

    compute: float
    power: float
    memory: float
    grain: float
    depth: float
    wave: float
    overlap: float
    fill: float
    launch: Seconds
    quantise: Seconds = 0.0
    quantise_memory: float = 0.5
    dequantise: float = 1.0


@dataclass(frozen=True, slots=True)
class PrefillConstants:
    """Attention of many queries per sequence (COST_MODEL.md point 2).

    Attributes
    ----------
    compute : share of peak FLOP/s of the matrix products, in (0, 1].
    exponential : softmax exponentials per second and compute unit (16 per clock on recent GPUs).
    tile : queries of one tile; queries are padded to it.
    depth : keys that prologue and epilogue of a tile cost, on top of half a tile on the diagonal.
    tail : share of the longest block that no other block hides.
    memory, overlap, fill, launch : as for a dense product.
    """

    compute: float
    exponential: float
    tile: float
    depth: float
    tail: float
    memory: float
    overlap: float
    fill: float
    launch: Seconds


@dataclass(frozen=True, slots=True)
class DecodeConstants:
    """Attention of one query per sequence (COST_MODEL.md point 3).

    Attributes
    ----------
    memory : share of peak memory bandwidth, 16-bit KV.
    memory_fp8 : the same for 8-bit KV.
    chunk : keys that one thread block reads at least, at the bandwidth of one compute unit.
    splits : blocks that the keys of one sequence and KV head are split over at most.
    compute : share of 16-bit peak on padded query groups.
    group : queries to which a group that shares one KV head is padded.
    wide : FLOP/s per compute unit on groups wider than an engine's tensor-core kernel serves.
    overlap, fill, launch : as for a dense product.
    """

    memory: float
    memory_fp8: float
    chunk: float
    splits: float
    compute: float
    group: float
    wide: float
    overlap: float
    fill: float
    launch: Seconds


@dataclass(frozen=True, slots=True)
class MoeConstants:
    """Fused expert block of one math type (COST_MODEL.md point 5).

    Attributes
    ----------
    compute : share of peak FLOP/s on padded rows of wide experts.
    memory : share of peak memory bandwidth while reading expert weights.
    padding : rows added per active expert by tile padding.
    grain : elements; an expert of width w per rank costs (1 + grain/w) of its FLOPs.
    passes : times that the routed rows cross memory for permute and activation.
    spread : times that all tokens of the group cross memory, whether routed here or not, with top-7 routing.
    overlap, fill : as for a dense product.
    launch : seconds of all launches of the block in a stand-alone loop.
    dequantise : slowdown of compute when narrow weights are widened in registers, at least 1.
    """

    compute: float
    memory: float
    padding: float
    grain: float
    passes: float
    spread: float
    overlap: float
    fill: float
    launch: Seconds
    dequantise: float = 1.0


@dataclass(frozen=True, slots=True)
class CollectiveConstants:
    """Collectives of a library and the engines' own small all-reduce kernel (COST_MODEL.md point 6).

    Attributes
    ----------
    start : seconds of a collective before the first byte, stand-alone.
    hop : fabric latencies per ring step (n - 1 steps of a gather, twice that of an all-reduce).
    tree : steps per doubling of the ranks once a tree needs fewer than the ring.
    bandwidth : share of the link that wire bytes reach, in (0, 1].
    own : share of a rank's own part (S/n) that is copied at link speed.
    in_network : gain of in-switch reduction on all-reduces of more than two ranks, at least 1.
    fill : seconds**0.5; pipeline fill costs fill*sqrt(wire seconds).
    custom_start, custom_hop : seconds of the engines' kernel and of each further rank.
    custom_direct : share of the link when every rank reads all others at once (small messages).
    custom_two_phase : share of the link when the kernel reduces, then gathers.
    host_sharing : exponent; n ranks behind one PCIe host reach (2/n)**host_sharing of the link each.
    network_start : seconds per hop between domains, besides the fabric's own latency.
    network_bandwidth : share of the NIC that wire bytes reach.
    """

    start: Seconds
    hop: float
    tree: float
    bandwidth: float
    own: float
    in_network: float
    fill: float
    custom_start: Seconds
    custom_hop: Seconds
    custom_direct: float
    custom_two_phase: float
    host_sharing: float
    network_start: Seconds
    network_bandwidth: float


@dataclass(frozen=True, slots=True)
class ElementwiseConstants:
    """Memory-bound kernels: norms, activations, rotary embedding, state updates.

    Attributes
    ----------
    memory : share of peak memory bandwidth.
    launch : seconds of one launch, stand-alone.
    recurrent_compute : share of 16-bit peak of chunked linear attention in prefill.
    """

    memory: float
    launch: Seconds
    recurrent_compute: float


@dataclass(frozen=True, slots=True)
class CacheConstants:
    """Last-level cache and the reach of one compute unit.

    The shares matter only for operands that a benchmark loop leaves in the cache; serving runs cold.

    Attributes
    ----------
    weights : share of the cache that operands of a looped matrix product still find (loops rotate buffers).
    sequence, experts : the same for looped attention and for looped expert blocks.
    unit_bandwidth : bytes/s that one compute unit reads.
    """

    weights: float
    sequence: float
    experts: float
    unit_bandwidth: float


@dataclass(frozen=True, slots=True)
class Efficiency:
    """All constants of one accelerator family.

    ``basis`` is ``calibrated`` when the family itself was measured, ``modelled`` when it runs on the pool;
    ``profiled`` when a user's profile calibrates it for the model and engine at hand.
    """

    family: str
    basis: str
    gemm: Mapping[str, GemmConstants]
    prefill: PrefillConstants
    decode: DecodeConstants
    latent_prefill: PrefillConstants
    latent_decode: DecodeConstants
    moe: Mapping[str, MoeConstants]
    collective: CollectiveConstants
    elementwise: ElementwiseConstants
    cache: CacheConstants
    source: str = ""
    profiled: bool = False

    @property
    def calibrated_by(self) -> Literal["family", "profile"] | None:
        """What fitted the constants: measurements of the family that ship, the user's profile, or nothing."""
        return "profile" if self.profiled else "family" if self.basis == "calibrated" else None


_T = TypeVar("_T")


def catalog_folder() -> Path:
    """Folder of the hardware catalog: inside the package in a wheel, next to it in a checkout."""
    return catalog_root("hardware_catalog")


def _fill(kind: type[_T], table: Mapping[str, Any]) -> _T:
    """One constants object from a TOML table; an unknown or a missing key is an error that names it."""
    known = {field.name for field in fields(kind)}  # type: ignore[arg-type]
    unknown = set(table) - known
    if unknown:
        raise ValueError(f"{kind.__name__} has no constant {sorted(unknown)}")
    return kind(**{key: float(value) for key, value in table.items()})


def parse_efficiency(family: str, tables: Mapping[str, Any]) -> Efficiency:
    """Constants from the merged tables of a profile."""
    return Efficiency(
        family=family,
        basis=str(tables.get("basis", "modelled")),
        gemm={math: _fill(GemmConstants, table) for math, table in tables["gemm"].items()},
        prefill=_fill(PrefillConstants, tables["prefill"]),
        decode=_fill(DecodeConstants, tables["decode"]),
        latent_prefill=_fill(PrefillConstants, tables["latent_prefill"]),
        latent_decode=_fill(DecodeConstants, tables["latent_decode"]),
        moe={math: _fill(MoeConstants, table) for math, table in tables["moe"].items()},
        collective=_fill(CollectiveConstants, tables["collective"]),
        elementwise=_fill(ElementwiseConstants, tables["elementwise"]),
        cache=_fill(CacheConstants, tables["cache"]),
        source=str(tables.get("source", "")),
    )


@lru_cache(maxsize=256)
def _load(family: str, accelerator: str, folders: tuple[Path, ...]) -> Efficiency:
    tables: dict[str, Any] = {}
    for name in ("pool", family, accelerator):
        for folder in folders:
            path = folder / f"{name}.toml"
            if name and path.is_file():
                tables = merged(tables, tomllib.loads(path.read_text(encoding="utf-8")))
    return parse_efficiency(family, tables)


def load_efficiency(family: str, extra_dirs: Iterable[str | Path] = (), accelerator: str = "") -> Efficiency:
    """Constants of ``family``: the pool, then the family's departures, then those of one accelerator that is not like
    its family; of each the built-in ones first, then those of the user's catalogs.

    Each of ``extra_dirs`` is a catalog folder that may hold ``efficiencies/``. A family never seen gets
    the pool and the basis ``modelled``.
    """
    folders = (catalog_folder(), *(Path(folder) for folder in extra_dirs))
    return _load(family, accelerator, tuple(folder / "efficiencies" for folder in folders))
