"""What a fleet offers, and what a job wants of it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from planner.catalog.hardware import Accelerator
from planner.cost.efficiency import Efficiency
from planner.errors import InputError
from planner.job.job import Job, Objective
from planner.serving.engine import Engine
from planner.units import UsdPerHour


@dataclass(frozen=True, slots=True)
class Supply:
    """GPUs of one type that the fleet offers, with their efficiency profile and price per GPU and hour (None:
    unknown). ``engine`` is the profile that the user calibrated on them, None for that of the job.
    """

    accelerator: Accelerator
    efficiency: Efficiency
    count: int
    price: UsdPerHour | None
    engine: Engine | None = None

    def joined(self, other: Supply) -> Supply:
        """The GPUs of two offers of one type, at the lower of the known prices. Raises InputError for unlike networks.
        """
        mine, its = self.accelerator.network_bandwidth, other.accelerator.network_bandwidth
        if mine != its:
            raise InputError(
                f"{self.accelerator.id} is offered with {mine * 8e-9:g} and with {its * 8e-9:g} Gbit/s per GPU",
                hint="give all its offers the same nic_gbps, or one of them a name of its own with --catalog",
            )
        prices = [price for price in (self.price, other.price) if price is not None]
        return replace(self, count=self.count + other.count, price=min(prices, default=None))


def objective_of(job: Job) -> Objective:
    """What is optimised: as asked; else the cheapest plan for a rate, and the most output from the fleet
    without one.
    """
    if job.objective is not None:
        return job.objective
    return "cost" if job.workload.rate is not None else "throughput"


def affordable(supply: Supply, job: Job) -> int:
    """GPUs of the type that the budget pays for, at most those of the fleet."""
    if job.budget is None or supply.price is None:
        return supply.count
    return min(supply.count, int(job.budget / supply.price * (1 + 1e-12)))
