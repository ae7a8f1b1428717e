"""The answer of the mixture optimiser, with its proof or with what is in the way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from planner.search.mixture.certificate import Certificate
from planner.search.mixture.problem import Goal, Role
from planner.units import PerSecond, UsdPerHour, Watts


@dataclass(frozen=True, slots=True)
class ReplicaCount:
    """``count`` replicas of a template; ``offers`` says where the GPUs of each type come from."""

    template: str
    role: Role
    model: str
    region: str
    offers: Mapping[str, str]  # GPU type -> offer
    count: int


@dataclass(frozen=True, slots=True)
class MixturePlan:
    """Replicas, what is rented, and who serves what.

    Attributes
    ----------
    gpus : GPUs rented by offer; ``nodes``: nodes by offer, for offers that come in nodes.
    assignment : requests/s by class and pool (template, with @region where there are regions).
    rate_multiple : multiple of the asked rates that the plan carries (1 unless throughput is the goal).
    """

    replicas: tuple[ReplicaCount, ...]
    gpus: Mapping[str, int]
    nodes: Mapping[str, int]
    assignment: Mapping[str, Mapping[str, PerSecond]]
    cost: UsdPerHour
    power: Watts
    gpus_total: int
    rate_multiple: float = 1.0


@dataclass(frozen=True, slots=True)
class Relaxation:
    """A limit that is in the way: ``law`` and ``name`` say which, ``amount`` by how much, ``message`` in a sentence."""

    law: str
    name: str
    amount: float
    message: str


@dataclass(frozen=True, slots=True)
class MixtureResult:
    """Status, plan and proof.

    Attributes
    ----------
    status : optimal, feasible (with its gap), infeasible, unbounded, or unknown (stopped before any plan).
    certificates : one per goal, in order. ``certificate`` is the first.
    relax : if infeasible, the least set of limits to raise, all together; empty if no raise helps.
    shortfall : if infeasible, the demand that cannot be met when the limits stay.
    """

    status: str
    plan: MixturePlan | None
    certificates: tuple[Certificate, ...]
    relax: tuple[Relaxation, ...] = ()
    shortfall: tuple[Relaxation, ...] = ()

    @property
    def certificate(self) -> Certificate:
        """Proof for the first goal."""
        return self.certificates[0]

    def value(self, goal: Goal) -> float | None:
        """Value of a goal in the plan, if the plan has it."""
        for certificate in self.certificates:
            if certificate.objective == goal.value:
                return certificate.value
        return None
