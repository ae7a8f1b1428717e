"""Exact mixtures: integer replicas of templates on priced, limited offers, with a proof of optimality."""

from planner.search.mixture.certificate import Certificate
from planner.search.mixture.plan import MixturePlan, MixtureResult, Relaxation, ReplicaCount
from planner.search.mixture.problem import (
    Goal,
    KvLink,
    Limits,
    MixtureProblem,
    Offer,
    RequestClass,
    Role,
    Template,
)
from planner.search.mixture.search import SolveOptions
from planner.search.mixture.solve import solve_mixture

__all__ = [
    "Certificate",
    "Goal",
    "KvLink",
    "Limits",
    "MixturePlan",
    "MixtureProblem",
    "MixtureResult",
    "Offer",
    "Relaxation",
    "ReplicaCount",
    "RequestClass",
    "Role",
    "SolveOptions",
    "Template",
    "solve_mixture",
]
