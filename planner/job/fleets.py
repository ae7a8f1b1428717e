"""Fleets in more detail than ``h100-sxm:16``: a YAML file of offers with prices, terms, regions and nodes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from planner.errors import InputError
from planner.job.documents import as_number, as_text, read_document, shown
from planner.job.fleet import MAX_GPUS, parse_fleet

_MAX_PRICE = 1e9
_MAX_NIC_GBPS = 1e6
_KEYS = {"gpu", "count", "usd_per_gpu_hour", "region", "spot", "node_gpus", "nic_gbps"}
_EXAMPLE = "offers: [{gpu: h100-sxm, count: 16, usd_per_gpu_hour: 2.5, spot: false, region: eu, node_gpus: 8}]"


@dataclass(frozen=True, slots=True)
class OfferSpec:
    """GPUs of one type on offer, as the user wrote it.

    Attributes
    ----------
    count : GPUs there are, None for as many as one likes.
    price : US dollars per GPU and hour, None for the catalog's reference.
    node_gpus : GPUs are had in nodes of so many.
    nic_gbps : Gbit/s per GPU and direction between nodes, None for the catalog's.
    """

    gpu: str
    count: int | None
    price: float | None = None
    region: str = ""
    spot: bool = False
    node_gpus: int = 1
    nic_gbps: float | None = None


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
    data = read_document(path, f"--fleet {path}")
    rows = data.get("offers") if isinstance(data, Mapping) else None
    if not isinstance(rows, list) or not rows:
        raise InputError(f"--fleet {path}: no offers", hint=_EXAMPLE)
    offers = tuple(_offer(row, f"--fleet {path}: offer {index}") for index, row in enumerate(rows, start=1))
    return FleetSpec(as_text(data.get("name") or path.stem, f"--fleet {path}: name"), offers)


def _offer(row: Any, where: str) -> OfferSpec:
    if not isinstance(row, Mapping) or not isinstance(row.get("gpu"), str):
        raise InputError(f"{where} has no gpu", hint=_EXAMPLE)
    unknown = sorted(shown(key) for key in row if key not in _KEYS)
    if unknown:
        raise InputError(f"{where}: unknown key {unknown[0]}", hint=", ".join(sorted(_KEYS)))
    if not isinstance(row.get("spot", False), bool):
        raise InputError(f"{where}: spot is {shown(row['spot'])}; it must be true or false")
    count = row.get("count")
    return OfferSpec(
        gpu=row["gpu"],
        count=None if count is None else _whole(count, f"{where}: count", least=0),
        price=None if row.get("usd_per_gpu_hour") is None else _price(row["usd_per_gpu_hour"], where),
        region=as_text(row.get("region", ""), f"{where}: region"),
        spot=bool(row.get("spot", False)),
        node_gpus=_whole(row.get("node_gpus", 1), f"{where}: node_gpus", least=1),
        nic_gbps=None if row.get("nic_gbps") is None else _nic(row["nic_gbps"], where),
    )


def _whole(value: Any, where: str, *, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= MAX_GPUS:
        raise InputError(f"{where} is {shown(value)}; it must be a whole number from {least} to {MAX_GPUS:,}")
    return value


def _nic(value: Any, where: str) -> float:
    speed = as_number(value)
    if not 0 < speed <= _MAX_NIC_GBPS:
        raise InputError(f"{where}: nic_gbps is {shown(value)}; it must be a number above zero, Gbit/s per GPU")
    return speed


def _price(value: Any, where: str) -> float:
    price = as_number(value)
    if not 0 <= price <= _MAX_PRICE:
        raise InputError(f"{where}: usd_per_gpu_hour is {shown(value)}; it must be a number of at least zero")
    return price
