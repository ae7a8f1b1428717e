"""Accelerator entries: TOML keys with units in, ``Accelerator`` in SI out.

The defaults are those of docs/how-to-add-a-gpu.md; built-in entries must not rely on them.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any, Final

from planner.catalog.entry import USER_SOURCE, Entry, Quantity
from planner.catalog.hardware import Accelerator, Fabric, ScaleUp
from planner.errors import InputError
from planner.units import GIB, MIB

_ID = re.compile(r"[a-z0-9][a-z0-9.-]{0,63}")
_GBIT: Final = 1e9 / 8

_MEMORY = Quantity({"memory_gib": GIB, "memory_mib": MIB, "memory_bytes": 1.0}, 0.1 * GIB, 16384 * GIB)
_MEMORY_BANDWIDTH = Quantity({"memory_bandwidth_gbs": 1e9, "memory_bandwidth_tbs": 1e12}, 1e9, 1e15)
_NETWORK = Quantity({"network_gbit_per_gpu": _GBIT, "network_gbs_per_gpu": 1e9}, 0.1 * _GBIT, 1e13)
_L2 = Quantity({"l2_mib": MIB}, 0.0, 65536 * MIB)
_POWER = Quantity({"tdp_w": 1.0}, 0.0, 100_000.0)
_FLOPS: Final[Mapping[str, Quantity]] = {
    math: Quantity({f"{math}_{suffix}": 1e12 for suffix in suffixes}, 0.1e12, 1e18)
    for math, suffixes in {
        "bf16": ("tflops",), "fp16": ("tflops",), "fp8": ("tflops",),
        "fp4": ("tflops",), "int8": ("tops", "tflops"), "fp32": ("tflops",),
    }.items()
}  # fmt: skip

_LINK = Quantity({"gbs_per_gpu": 1e9}, 0.1e9, 1e14)
_PAIR = Quantity({"gbs_per_pair": 1e9}, 0.1e9, 1e14)
_LINK_LATENCY = Quantity({"latency_us": 1e-6}, 0.0, 0.1)
_LINK_KEYS: Final = (
    "kind",
    "gbs_per_gpu",
    "gbs_per_pair",
    "domain_size",
    "latency_us",
    "in_network_reduction",
)

_QUANTITIES: Final = (_MEMORY, _MEMORY_BANDWIDTH, _NETWORK, _L2, _POWER, *_FLOPS.values())
_TEXT_KEYS: Final = ("name", "vendor", "family", "confidence", "source", "notes")
_OTHER_KEYS: Final = ("year", "aliases", "compute_units", "gpus_per_node", "scale_up", "sources", "announced")
_KEYS: Final = (*_TEXT_KEYS, *_OTHER_KEYS, *(key for quantity in _QUANTITIES for key in quantity.units))
_REQUIRED_BUILT_IN: Final = (
    "name",
    "family",
    "confidence",
    "source",
    "compute_units",
    "gpus_per_node",
    "scale_up",
)
_FIELDS: Final = frozenset(field.name for field in dataclasses.fields(Accelerator)) | {"all"}

# What a user's entry need not say.
_DEFAULT_FAMILY: Final = "generic"
_DEFAULT_COMPUTE_UNITS: Final = 128
_DEFAULT_NETWORK: Final = 100 * _GBIT
_DEFAULT_GPUS_PER_NODE: Final = 8
_DEFAULT_SCALE_UP: Final = {"kind": "pcie5"}


def merge_entries(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Lay a user's entry over one of the same id: its keys win, in whatever unit, the others stay."""
    hidden = {key for q in _QUANTITIES if not q.units.keys().isdisjoint(above) for key in q.units}
    merged = {key: value for key, value in below.items() if key not in hidden} | dict(above)
    if "source" in below and "source" not in above:
        merged["source"] = f"{below['source']}; changed by a user's catalog"
    for key in ("scale_up", "sources"):
        if isinstance(below.get(key), dict) and isinstance(above.get(key), dict):
            merged[key] = below[key] | above[key]
    return merged


def read_accelerator(
    accelerator_id: str, entry: Entry, fabrics: Mapping[str, Fabric], *, built_in: bool
) -> Accelerator:
    """Turn one entry into an Accelerator in SI units. Raises InputError naming file, entry and key."""
    if not _ID.fullmatch(accelerator_id):
        raise InputError(f"{entry.where}: an id has lower-case letters, digits, dots and hyphens, at most 64")
    entry.refuse_unknown(_KEYS)
    for key in _REQUIRED_BUILT_IN if built_in else ():
        entry.require(key)
    return Accelerator(
        id=accelerator_id,
        name=entry.text("name", accelerator_id),
        vendor=entry.text("vendor", "custom"),
        family=entry.text("family", _DEFAULT_FAMILY),
        year=entry.integer("year", 1990, 2100, 0 if not built_in else None),
        memory=entry.quantity(_MEMORY),
        memory_bandwidth=entry.quantity(_MEMORY_BANDWIDTH),
        flops=_read_flops(entry),
        compute_units=entry.integer("compute_units", 1, 1_000_000, _DEFAULT_COMPUTE_UNITS),
        l2=entry.quantity(_L2, 0.0),
        scale_up=_read_scale_up(entry, fabrics),
        network_bandwidth=entry.quantity(_NETWORK, _DEFAULT_NETWORK),
        gpus_per_node=entry.integer("gpus_per_node", 1, 1024, _DEFAULT_GPUS_PER_NODE),
        power=entry.quantity(_POWER, 0.0),
        aliases=entry.texts("aliases"),
        confidence=entry.text("confidence", "user"),
        sources=_read_sources(entry),
        notes=entry.text("notes", ""),
        announced=entry.flag("announced"),
    )


def _read_flops(entry: Entry) -> dict[str, float]:
    given = {math: q for math, q in _FLOPS.items() if not q.units.keys().isdisjoint(entry.table)}
    flops = {math: entry.quantity(q) for math, q in given.items()}
    if not flops:
        raise InputError(f"{entry.where}: missing a dense compute rate", hint="for example bf16_tflops = 400")
    return flops


def _read_scale_up(entry: Entry, fabrics: Mapping[str, Fabric]) -> ScaleUp:
    """Read the scale-up link; bandwidth and latency come from its fabric unless the entry says otherwise."""
    table = entry.entry("scale_up", _DEFAULT_SCALE_UP)
    table.refuse_unknown(_LINK_KEYS)
    kind = table.text("kind")
    if kind not in fabrics:
        raise table.fail("kind", f"unknown fabric {kind[:80]!r}", f"one of {', '.join(sorted(fabrics))}")
    bandwidth = table.quantity(_LINK, fabrics[kind].bandwidth)
    pair = table.quantity(_PAIR, bandwidth)
    if pair > bandwidth:
        raise table.fail("gbs_per_pair", "above gbs_per_gpu, which counts all links")
    per_node = entry.integer("gpus_per_node", 1, 1024, _DEFAULT_GPUS_PER_NODE)
    return ScaleUp(
        kind=kind,
        bandwidth=bandwidth,
        pair_bandwidth=pair,
        domain_size=table.integer("domain_size", 1, 100_000, per_node),
        latency=table.quantity(_LINK_LATENCY, fabrics[kind].latency),
        in_network_reduction=table.flag("in_network_reduction"),
    )


def _read_sources(entry: Entry) -> dict[str, str]:
    table = entry.entry("sources")
    table.refuse_unknown(_FIELDS)
    by_field = {field: table.text(field) for field in table.table}
    return {"all": entry.text("source", USER_SOURCE)} | by_field
