"""Fleets in more detail than ``h100-sxm:16``: a YAML file of offers with prices, terms, regions and nodes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from planner.errors import InputError
from planner.job.fleet import MAX_GPUS, parse_fleet

_KEYS = {"gpu", "count", "usd_per_gpu_hour", "region", "spot", "node_gpus", "name"}
_EXAMPLE = "offers: [{gpu: h100-sxm, count: 16, usd_per_gpu_hour: 2.5, spot: false, region: eu, node_gpus: 8}]"


@dataclass(frozen=True, slots=True)
class OfferSpec:
    """GPUs of one type on offer, as the user wrote it.

    Attributes
    ----------
    count : GPUs there are, None for as many as one likes.
    price : US dollars per GPU and hour, None for the catalog's reference.
    node_gpus : GPUs are had in nodes of so many.
    """

    gpu: str
    count: int | None
    price: float | None = None
    region: str = ""
    spot: bool = False
    node_gpus: int = 1


@dataclass(frozen=True, slots=True)
class FleetSpec:
    """A named set of offers."""

    name: str
    offers: tuple[OfferSpec, ...]


def parse_fleet_option(text: str) -> FleetSpec:
    """Read ``--fleet``: ``GPU:COUNT[,GPU:COUNT]``, or the path of a fleet file. Raises InputError."""
    if Path(text).suffix.lower() in (".yaml", ".yml", ".json"):
        return read_fleet_file(Path(text))
    fleet = parse_fleet(text)
    return FleetSpec(str(fleet), tuple(OfferSpec(gpu, count) for gpu, count in fleet.gpus.items()))


def read_fleet_file(path: Path) -> FleetSpec:
    """Read ``name`` and ``offers`` from YAML. Raises InputError naming the entry and the key."""
    import yaml

    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as problem:
        raise InputError(f"--fleet {path}: cannot be read: {problem}") from None
    except yaml.YAMLError as problem:
        raise InputError(f"--fleet {path}: not YAML: {' '.join(str(problem).split())[:200]}") from None
    rows = data.get("offers") if isinstance(data, Mapping) else None
    if not isinstance(rows, list) or not rows:
        raise InputError(f"--fleet {path}: no offers", hint=_EXAMPLE)
    offers = tuple(_offer(row, f"--fleet {path}: offer {index}") for index, row in enumerate(rows, start=1))
    return FleetSpec(str(data.get("name") or path.stem)[:80], offers)


def _offer(row: Any, where: str) -> OfferSpec:
    if not isinstance(row, Mapping) or not isinstance(row.get("gpu"), str):
        raise InputError(f"{where} has no gpu", hint=_EXAMPLE)
    unknown = sorted(str(key) for key in row if key not in _KEYS)
    if unknown:
        raise InputError(f"{where}: unknown key {unknown[0]!r}", hint=", ".join(sorted(_KEYS)))
    if not isinstance(row.get("spot", False), bool):
        raise InputError(f"{where}: spot is {row['spot']!r}; it must be true or false")
    count = row.get("count")
    return OfferSpec(
        gpu=row["gpu"],
        count=None if count is None else _whole(count, f"{where}: count", least=0),
        price=None if row.get("usd_per_gpu_hour") is None else _price(row["usd_per_gpu_hour"], where),
        region=str(row.get("region", "")),
        spot=bool(row.get("spot", False)),
        node_gpus=_whole(row.get("node_gpus", 1), f"{where}: node_gpus", least=1),
    )


def _whole(value: Any, where: str, *, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= MAX_GPUS:
        raise InputError(f"{where} is {value!r}; it must be a whole number from {least} to {MAX_GPUS:,}")
    return value


def _price(value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
        raise InputError(f"{where}: usd_per_gpu_hour is {value!r}; it must be a number of at least zero")
    return float(value)
