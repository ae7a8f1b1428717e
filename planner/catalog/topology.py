"""Fabric and node entries: the interconnects inside and between nodes, and the servers that have them."""

from __future__ import annotations

from typing import Final

from planner.catalog.entry import USER_SOURCE, Entry, Quantity
from planner.catalog.hardware import Fabric, Node

_BANDWIDTH = Quantity({"bandwidth_gbs": 1e9}, 0.01e9, 1e14)
_STEP_LATENCY = Quantity({"step_latency_us": 1e-6}, 0.0, 0.1)
_CALL_LATENCY = Quantity({"call_latency_us": 1e-6}, 0.0, 0.1)
_FABRIC_KEYS: Final = (
    "kind", "bandwidth_gbs", "step_latency_us", "call_latency_us",
    "achieved_fraction", "in_network_fraction", "source",
)  # fmt: skip
_NIC = Quantity({"nic_gbit": 1e9 / 8}, 0.01e9, 1e13)
_NODE_KEYS: Final = (
    "provider", "accelerator", "gpus", "nics", "nic_gbit", "fabric", "scale_up_domain", "source",
)  # fmt: skip


def read_fabric(fabric_id: str, entry: Entry, *, built_in: bool) -> Fabric:
    """Turn one entry into a Fabric in SI units. Raises InputError naming file, entry and key."""
    entry.refuse_unknown(_FABRIC_KEYS)
    entry.require("achieved_fraction")
    kind = entry.text("kind")
    if kind not in ("scale-up", "scale-out"):
        raise entry.fail("kind", "must be scale-up or scale-out")
    switched = "in_network_fraction" in entry.table
    return Fabric(
        id=fabric_id,
        kind=kind,
        bandwidth=entry.quantity(_BANDWIDTH),
        latency=entry.quantity(_STEP_LATENCY),
        achieved_fraction=entry.number("achieved_fraction", 0.01, 1.0),
        source=entry.text("source", None if built_in else USER_SOURCE),
        call_latency=entry.quantity(_CALL_LATENCY, 0.0),
        # A reducing switch lets each byte cross a link once instead of nearly twice, hence up to 2.
        in_network_fraction=entry.number("in_network_fraction", 0.01, 2.0) if switched else 0.0,
    )


def read_node(node_id: str, entry: Entry, *, built_in: bool) -> Node:
    """Turn one entry into a Node in SI units; its accelerator is an id. Raises InputError."""
    entry.refuse_unknown(_NODE_KEYS)
    gpus = entry.integer("gpus", 1, 1024)
    nics = entry.integer("nics", 1, 1024)
    return Node(
        id=node_id,
        provider=entry.text("provider", None if built_in else "custom"),
        accelerator=entry.text("accelerator"),
        gpus=gpus,
        network_bandwidth=nics * entry.quantity(_NIC),
        nics=nics,
        fabric=entry.text("fabric"),
        scale_up_domain=entry.integer("scale_up_domain", 1, 100_000, gpus),
        source=entry.text("source", None if built_in else USER_SOURCE),
    )
