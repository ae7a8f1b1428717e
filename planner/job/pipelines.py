"""Pipelines over unlike devices, from rates that the user measured: the other input of ``planner allocate``.

``{"layers": 80, "devices": [{"name": "a100", "count": 4, "rates": [16000, 8000, ...]}]}``: ``rates[l-1]`` is the rate
(tokens/s or requests/s) of one device that holds l layers, and a device holds at most as many layers as it has rates.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StrictInt

from planner.errors import InputError

FORMAT = 'expected {"layers": 80, "devices": [{"name": "a100", "count": 4, "rates": [rate with 1 layer, with 2, ...]}]}'
# Cells of the pricing table (devices x rates x layers): one byte each.
_MAX_CELLS = 200_000_000
_Rate = Annotated[float, Field(ge=0, le=1e12, allow_inf_nan=False, strict=True)]


class PipelineDeviceSpec(BaseModel):
    """``count`` devices of a kind."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Annotated[str, Field(min_length=1, max_length=200)]
    count: Annotated[StrictInt, Field(ge=0, le=10_000)]
    rates: Annotated[tuple[_Rate, ...], Field(min_length=1, max_length=10_000)]


class PipelineProblem(BaseModel):
    """A model of ``layers`` equal layers and the devices to build pipelines from."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    layers: Annotated[StrictInt, Field(ge=1, le=10_000)]
    devices: Annotated[tuple[PipelineDeviceSpec, ...], Field(min_length=1)]


def is_pipelines(data: object) -> bool:
    """Whether a profile asks for pipelines and not for replicas."""
    return isinstance(data, dict) and "devices" in data


def check_pipelines(problem: PipelineProblem, where: str) -> PipelineProblem:
    """Return the problem. Raises InputError for names given twice, rates that rise with more layers, and a table that
    would not fit in memory.
    """
    names: set[str] = set()
    for device in problem.devices:
        if device.name in names:
            raise InputError(f"{where}: device {device.name!r} is given twice", hint="add their counts up")
        names.add(device.name)
        if any(later > earlier for earlier, later in pairwise(device.rates)):
            raise InputError(f"{where}: device {device.name!r} gets faster with more layers", hint=FORMAT)
    rates: set[Any] = {rate for device in problem.devices for rate in device.rates}
    if len(rates) * problem.layers * sum(device.count for device in problem.devices) > _MAX_CELLS:
        raise InputError(
            f"{where}: too many devices, rates and layers together", hint="round the rates, or group devices"
        )
    return problem
