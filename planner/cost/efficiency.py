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
from typing import Any, TypeVar

from planner.units import Seconds


@dataclass(frozen=True, slots=True)
class GemmConstants:
    """Dense matrix product of one math type (COST_MODEL.md point 1).

    Attributes
    ----------
    compute : share of peak FLOP/s inside a large tile, in (0, 1].
    memory : share of peak memory bandwidth, in (0, 1].
    grain : elements; a tile of harmonic size a = tm*tn/(tm+tn) reaches a/(a+grain) of ``compute``.
    depth : elements of k that prologue and epilogue of a tile cost.
    wave : share of a partial last wave that is lost, in [0, 1].
    overlap : extra time where compute and memory take equally long, as a share; 0 = perfect overlap.
    launch : seconds of one launch in a stand-alone loop.
    quantise : launch of the activation quantisation kernel as a share of ``launch``; 0 for 16-bit math.
    dequantise : slowdown of compute when narrow weights are widened in registers, at least 1.
    """

    compute: float
    memory: float
    grain: float
    depth: float
    wave: float
    overlap: float
    launch: Seconds
    quantise: float = 0.0
    dequantise: float = 1.0


@dataclass(frozen=True, slots=True)
class PrefillConstants:
    """Attention of many queries per sequence (COST_MODEL.md point 2).

    Attributes
    ----------
    compute : share of peak FLOP/s of the matrix products, in (0, 1].
    softmax : 16-bit FLOP-equivalents of softmax per (query, key) pair, counted like head elements.
    softmax_fp8 : the same under 8-bit math, where exp does not speed up.
    tile : queries (and keys) of one tile.
    tail : share of the longest block that no other block hides.
    memory : share of peak memory bandwidth.
    overlap, launch : as for a dense product.
    """

    compute: float
    softmax: float
    softmax_fp8: float
    tile: float
    tail: float
    memory: float
    overlap: float
    launch: Seconds


@dataclass(frozen=True, slots=True)
class DecodeConstants:
    """Attention of one query per sequence (COST_MODEL.md point 3).

    Attributes
    ----------
    memory : share of peak memory bandwidth, 16-bit KV.
    memory_fp8 : the same for 8-bit KV.
    chunk : keys that one thread block reads at least; fewer blocks than compute units leave bandwidth idle.
    compute : share of 16-bit peak on padded query groups.
    group : queries to which a group that shares one KV head is padded.
    overlap, launch : as for a dense product.
    """

    memory: float
    memory_fp8: float
    chunk: float
    compute: float
    group: float
    overlap: float
    launch: Seconds


@dataclass(frozen=True, slots=True)
class MoeConstants:
    """Fused expert block of one math type (COST_MODEL.md point 5).

    Attributes
    ----------
    compute : share of peak FLOP/s on padded rows.
    memory : share of peak memory bandwidth while reading expert weights.
    padding : rows added per active expert by tile padding.
    grain : elements; efficiency of a tile as for a dense product.
    passes : times that the routed activations cross memory for permute, activation and un-permute.
    overlap : as for a dense product.
    launch : seconds of all launches of the block in a stand-alone loop.
    """

    compute: float
    memory: float
    padding: float
    grain: float
    passes: float
    overlap: float
    launch: Seconds


@dataclass(frozen=True, slots=True)
class CollectiveConstants:
    """Collectives over a library and over the engines' small all-reduce kernel (COST_MODEL.md point 6).

    Attributes
    ----------
    start : seconds of a collective before the first byte (a0), stand-alone.
    step : seconds per doubling of the ranks (a1).
    bandwidth : share of the link that the wire bytes reach, in (0, 1].
    in_network : gain of in-switch reduction on large all-reduces, at least 1.
    fill : seconds**0.5; pipeline fill costs fill*sqrt(wire seconds).
    custom_start : seconds of the custom all-reduce kernel, stand-alone.
    custom_step : seconds per doubling of the ranks.
    custom_bandwidth : share of the link that the custom kernel reaches.
    network_start : seconds per hop between nodes.
    network_bandwidth : share of the NIC that wire bytes reach.
    """

    start: Seconds
    step: Seconds
    bandwidth: float
    in_network: float
    fill: float
    custom_start: Seconds
    custom_step: Seconds
    custom_bandwidth: float
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
    """Last-level cache, for operands that a stand-alone benchmark loop leaves there; serving runs cold.

    Attributes
    ----------
    share : share of the cache that a working set can fill before it is evicted.
    unit_bandwidth : bytes/s that one compute unit reads from the cache.
    """

    share: float
    unit_bandwidth: float


@dataclass(frozen=True, slots=True)
class Efficiency:
    """All constants of one accelerator family.

    ``basis`` is ``calibrated`` when the family itself was measured, ``modelled`` when it runs on the pool.
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


_T = TypeVar("_T")


def catalog_folder() -> Path:
    """Folder of the hardware catalog: inside the package in a wheel, next to it in a checkout."""
    package = Path(__file__).resolve().parent.parent
    inside = package / "hardware_catalog"
    return inside if inside.is_dir() else package.parent / "hardware_catalog"


def _merge(base: dict[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """``base`` with the keys of ``over`` replaced, table by table."""
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        merged[key] = _merge(old, value) if isinstance(old, dict) and isinstance(value, Mapping) else value
    return merged


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
def _load(family: str, folders: tuple[Path, ...]) -> Efficiency:
    tables: dict[str, Any] = {}
    for name in ("pool", family):
        for folder in folders:
            path = folder / f"{name}.toml"
            if path.is_file():
                tables = _merge(tables, tomllib.loads(path.read_text(encoding="utf-8")))
    return parse_efficiency(family, tables)


def load_efficiency(family: str, extra_dirs: Iterable[str | Path] = ()) -> Efficiency:
    """Constants of ``family``: the pool, then the family's departures, then those of the user's catalogs.

    Each of ``extra_dirs`` is a catalog folder that may hold ``efficiencies/``. A family never seen gets
    the pool and the basis ``modelled``.
    """
    folders = (catalog_folder(), *(Path(folder) for folder in extra_dirs))
    return _load(family, tuple(folder / "efficiencies" for folder in folders))
