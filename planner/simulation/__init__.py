"""Event simulation of a deployment under a request stream.

``simulate(deployment, stream)`` runs it, ``summarize(run, target)`` makes statistics of what happened.
"""

from planner.simulation.links import Transfer
from planner.simulation.metrics import Statistic, Summary, Target, summarize
from planner.simulation.request import Request
from planner.simulation.settings import Deployment, EngineSettings, Policy, Pool, Routing
from planner.simulation.simulator import Run, Stream, simulate
from planner.simulation.stability import Stability
from planner.simulation.steps import AffineSteps, PiecewiseAffine, StepModel
from planner.simulation.tabulated import TabulatedSteps
from planner.simulation.timeline import timeline_text

__all__ = [
    "AffineSteps",
    "Deployment",
    "EngineSettings",
    "PiecewiseAffine",
    "Policy",
    "Pool",
    "Request",
    "Routing",
    "Run",
    "Stability",
    "Statistic",
    "StepModel",
    "Stream",
    "Summary",
    "TabulatedSteps",
    "Target",
    "Transfer",
    "simulate",
    "summarize",
    "timeline_text",
]
