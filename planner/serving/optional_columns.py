"""Columns that rows may have beyond layouts and load."""

from __future__ import annotations

import math
from dataclasses import replace

from planner.errors import InputError
from planner.job.points import Point
from planner.serving.replica import Replica


def number(point: Point, name: str, default: float, low: float, high: float) -> float:
    """The number in an optional column; ValueError says what is wrong with it."""
    text = point.extra.get(name)
    if not text:
        return default
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not low <= value <= high:
        upper = "" if high == math.inf else f" and at most {high:g}"
        raise ValueError(f"{name} is {text!r}; it must be a number of at least {low:g}{upper}")
    return value


def on_network(point: Point, replica: Replica) -> Replica:
    """The replica with the network of ``nic_gbps`` per GPU, where the row has one. Raises InputError."""
    try:
        nic = number(point, "nic_gbps", 0.0, 0.0, math.inf)
    except ValueError as wrong:
        raise InputError(str(wrong)) from None
    if not nic:
        return replica
    return replica.on(replace(replica.accelerator, network_bandwidth=nic * 1e9 / 8), replica.efficiency)
