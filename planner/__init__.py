"""planner: capacity planning and parallelism optimisation for large language models."""

__version__ = "0.1.0"
