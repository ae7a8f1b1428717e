"""What the user asks: workload, latency targets, fleet, objective."""

from planner.job.fleet import Fleet, parse_fleet
from planner.job.job import Job
from planner.job.slo import Slo
from planner.job.workload import Workload

__all__ = ["Fleet", "Job", "Slo", "Workload", "parse_fleet"]
