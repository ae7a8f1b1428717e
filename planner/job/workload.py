"""What arrives: prompt and output lengths, and how requests come (open loop, closed loop, static batch)."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Arrivals = Literal["poisson", "closed_loop", "static"]


class Workload(BaseModel):
    """A stream of requests with mean lengths.

    Attributes
    ----------
    isl, osl : mean prompt and output tokens. Means may be fractional.
    rate : requests/s over the whole deployment (Poisson arrivals), or None.
    concurrency : requests kept in flight over the whole deployment (closed loop), or None.
    prefix_hit : share of prompt tokens found in the prefix cache, [0, 1).
    With neither rate nor concurrency the planner looks for the highest rate that keeps the SLOs.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    isl: float = Field(gt=0, le=1e8)
    osl: float = Field(ge=1, le=1e8)
    rate: float | None = Field(default=None, gt=0)
    concurrency: float | None = Field(default=None, gt=0)
    prefix_hit: float = Field(default=0.0, ge=0, lt=1)

    @model_validator(mode="after")
    def _one_kind_of_load(self) -> Workload:
        if self.rate is not None and self.concurrency is not None:
            raise ValueError("give --rate (open loop) or --concurrency (closed loop), not both")
        return self

    @property
    def arrivals(self) -> Arrivals:
        """Open loop unless a concurrency is asked for."""
        return "closed_loop" if self.concurrency is not None else "poisson"

    @property
    def new_tokens(self) -> float:
        """Prompt tokens that have to be prefilled: those that the prefix cache does not hold."""
        return self.isl * (1 - self.prefix_hit)
