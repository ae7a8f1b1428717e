"""A job: everything that a search is asked, validated once."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from planner.job.fleet import Fleet
from planner.job.slo import Slo
from planner.job.speculating import Speculating
from planner.job.tuning import Tuning
from planner.job.workload import Workload

Objective = Literal["throughput", "cost", "latency", "gpus", "energy"]
Mode = Literal["aggregated", "pd", "af"]
OBJECTIVES: tuple[Objective, ...] = ("throughput", "cost", "latency", "gpus", "energy")


class Job(BaseModel):
    """One planning question.

    Attributes
    ----------
    model : catalog name or path of a config.json, as the user wrote it.
    weights, kv : precisions to consider; empty means what the model and the hardware allow.
    budget : upper limit on the price in US dollars per hour, or None.
    simulate_top : plans that the event simulation re-checks, best first; 0 trusts the closed forms.
    speculate : how to draft tokens, or None to decode one at a time.
    tuning : what the user knows of the engine's overlap and of the balance of experts.
    cp : context-parallel widths to consider; empty means 1, and more for long prompts.
    max_gpus_per_replica : bound of the layout search, or None for the fleet size.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    model: str
    fleet: Fleet
    workload: Workload
    slo: Slo = Slo()
    objective: Objective | None = None
    modes: tuple[Mode, ...] = ("aggregated",)
    weights: tuple[str, ...] = ()
    kv: tuple[str, ...] = ()
    engine: str = "vllm"
    budget: float | None = Field(default=None, gt=0)
    top: int = Field(default=5, ge=1, le=1000)
    simulate_top: int = Field(default=5, ge=0, le=1000)
    seed: int = Field(default=0, ge=0)
    speculate: Speculating | None = None
    tuning: Tuning = Tuning()
    cp: tuple[Annotated[int, Field(ge=1, le=64)], ...] = ()
    max_gpus_per_replica: int | None = Field(default=None, ge=1)
