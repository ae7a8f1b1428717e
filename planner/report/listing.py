"""What the catalogs know, as rows and records."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any, Final, NamedTuple

from planner.api import Catalogs
from planner.architecture.catalog import known_models
from planner.architecture.parameters import active_parameters, mtp_parameters, total_parameters
from planner.architecture.precision import available_weights, weight_bytes
from planner.architecture.state import kv_bytes_per_token, kv_growth_per_token, state_bytes
from planner.errors import UnknownNameError
from planner.plan import significant
from planner.serving.engine import known_engines, load_engine
from planner.units import GIB


def list_gpus(catalogs: Catalogs) -> list[dict[str, Any]]:
    """One row per accelerator."""
    rows = []
    for gpu in catalogs.hardware.accelerators.values():
        price = catalogs.hardware.reference_price(gpu.id)
        rows.append(
            {
                "id": gpu.id,
                "vendor": gpu.vendor,
                "year": gpu.year,
                "memory GiB": round(gpu.memory / GIB, 1),
                "GB/s": round(gpu.memory_bandwidth / 1e9),
                "bf16 TFLOP/s": _tera(gpu.flops, "bf16", "fp16"),
                "fp8": _tera(gpu.flops, "fp8"),
                "fp4": _tera(gpu.flops, "fp4"),
                "scale-up GB/s": round(gpu.scale_up.bandwidth / 1e9),
                "domain": gpu.scale_up.domain_size,
                "$/h": None if price is None else round(price.usd_per_gpu_hour, 2),
            }
        )
    return rows


def show_gpu(catalogs: Catalogs, name: str) -> dict[str, Any]:
    """Everything known of one accelerator, with sources."""
    gpu = catalogs.hardware.accelerator(name)
    price = catalogs.hardware.reference_price(gpu.id)
    return {
        "id": gpu.id,
        "name": gpu.name,
        "vendor": gpu.vendor,
        "family": gpu.family,
        "year": gpu.year,
        "aliases": list(gpu.aliases),
        "memory_gib": round(gpu.memory / GIB, 3),
        "memory_bandwidth_gbs": gpu.memory_bandwidth / 1e9,
        "dense_tflops": {math: flops / 1e12 for math, flops in gpu.flops.items()},
        "compute_units": gpu.compute_units,
        "scale_up": {
            "kind": gpu.scale_up.kind,
            "gbs_per_gpu": gpu.scale_up.bandwidth / 1e9,
            "domain_size": gpu.scale_up.domain_size,
        },
        "network_gbs_per_gpu": gpu.network_bandwidth / 1e9,
        "gpus_per_node": gpu.gpus_per_node,
        "tdp_w": gpu.power or None,
        "reference_usd_per_hour": None if price is None else price.usd_per_gpu_hour,
        "reference_price": None if price is None else f"{price.provider} {price.instance} {price.region} {price.date}",
        "confidence": gpu.confidence,
        "sources": dict(gpu.sources),
        "notes": gpu.notes,
    }


def list_models(catalogs: Catalogs) -> list[dict[str, Any]]:
    """One row per model of the catalog."""
    rows = []
    for name in known_models(catalogs.model_folders):
        model = catalogs.model(name)
        rows.append(
            {
                "model": model.id,
                "architecture": model.architecture,
                "layers": len(model.layers),
                "parameters B": round(total_parameters(model) / 1e9, 2),
                "active B": round(active_parameters(model) / 1e9, 2),
                "KV B/token": round(kv_bytes_per_token(model)),
                "checkpoint": model.checkpoint.weights,
            }
        )
    return rows


def show_model(catalogs: Catalogs, name: str) -> dict[str, Any]:
    """Parameters, cache and sizes of one model. ``weights_gib`` is what a deployment holds: converted matrices with
    their scales, the rest in bf16."""
    model = catalogs.model(name)
    sizes = {w: sum(weight_bytes(model, w).values()) / GIB for w in ("bf16", *available_weights(model))}
    return {
        "name": model.id,
        "architecture": model.architecture,
        "layers": len(model.layers),
        "hidden": model.hidden,
        "vocab": model.vocab,
        "total_parameters": total_parameters(model),
        "active_parameters": active_parameters(model),
        "mtp_parameters": mtp_parameters(model),
        "kv_bytes_per_token_bf16": kv_bytes_per_token(model),
        "kv_growth_bytes_per_token_bf16": kv_growth_per_token(model),
        "state_bytes_per_sequence": state_bytes(model),
        "weights_gib": {w: round(size, 3) for w, size in sizes.items()},
        "checkpoint": {"weights": model.checkpoint.weights, "kv": model.checkpoint.kv},
        "max_context": model.max_context,
        "source": model.source,
    }


def list_nodes(catalogs: Catalogs) -> list[dict[str, Any]]:
    """One row per server or instance type."""
    return [
        {
            "id": node.id, "provider": node.provider, "gpu": node.accelerator, "gpus": node.gpus, "nics": node.nics,
            "network GB/s per GPU": round(node.network_bandwidth / 1e9, 2), "fabric": node.fabric,
            "domain": node.scale_up_domain, "source": node.source,
        }
        for node in catalogs.hardware.nodes.values()
    ]  # fmt: skip


def show_node(catalogs: Catalogs, name: str) -> dict[str, Any]:
    """One server or instance type. Raises UnknownNameError."""
    rows = {row["id"]: row for row in list_nodes(catalogs)}
    if name.lower() not in rows:
        raise UnknownNameError("server", name, rows, listing="planner catalog nodes")
    return rows[name.lower()]


def list_engines(catalogs: Catalogs) -> list[dict[str, Any]]:
    """One row per engine profile."""
    engines = [load_engine(name, catalogs.folders) for name in known_engines(catalogs.folders)]
    return [
        {
            "id": e.id, "prefill": e.prefill, "chunk tokens": int(e.chunk_tokens),
            "max sequences": int(e.max_sequences), "memory share": e.utilization, "step us": round(e.step * 1e6),
            "per sequence us": round(e.sequence * 1e6, 1), "layer gap us": round(e.layer_gap * 1e6, 1),
        }
        for e in engines
    ]  # fmt: skip


def show_engine(catalogs: Catalogs, name: str) -> dict[str, Any]:
    """Every value of one engine profile, times in seconds and sizes in bytes; what the values rest on is in the file
    hardware_catalog/engines. Raises UnknownNameError."""
    values = asdict(load_engine(name, catalogs.folders))
    variants = {vendor: dict(changes) for vendor, changes in values.pop("variants")}
    usual = variants.pop("", {})
    departures = {
        vendor: _tidied({key: value for key, value in changes.items() if value != usual[key]})
        for vendor, changes in variants.items()
    }
    return {**_tidied(values), "variants": departures}


def _tidied(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: significant(value) if isinstance(value, float) else value for key, value in values.items()}


def list_prices(catalogs: Catalogs, gpu: str | None = None) -> list[dict[str, Any]]:
    """One row per dated offer."""
    hardware = catalogs.hardware
    prices = hardware.prices if gpu is None else hardware.prices_for(gpu)
    return [
        {
            "gpu": p.accelerator, "usd_per_gpu_hour": round(p.usd_per_gpu_hour, 4), "term": p.term,
            "provider": p.provider,
            "instance": p.instance, "gpus": p.gpus, "region": p.region, "date": p.date, "source": p.source,
        }
        for p in prices
    ]  # fmt: skip


def _tera(flops: Any, *names: str) -> float | None:
    return next((round(flops[name] / 1e12, 1) for name in names if name in flops), None)


class Listing(NamedTuple):
    """All rows of a kind, one entry of it in full, and a name that stands in it."""

    rows: Callable[[Catalogs], list[dict[str, Any]]]
    entry: Callable[[Catalogs, str], dict[str, Any]]
    example: str


LISTINGS: Final = {
    "gpus": Listing(list_gpus, show_gpu, "h100-sxm"),
    "models": Listing(list_models, show_model, "llama-3.1-8b"),
    "nodes": Listing(list_nodes, show_node, "p5.48xlarge"),
    "engines": Listing(list_engines, show_engine, "vllm"),
}
