"""Latency targets and the statistic at which they must hold."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Percentile = Literal["mean", "p50", "p90", "p95", "p99"]

# Standard normal quantiles; the mean of a skewed quantity is handled apart.
QUANTILE: dict[str, float] = {"p50": 0.50, "p90": 0.90, "p95": 0.95, "p99": 0.99}


class Slo(BaseModel):
    """Upper limits in seconds; None means no limit.

    TTFT runs from arrival to the first token. TPOT = (end-to-end - TTFT)/(output tokens - 1), per request.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    ttft: float | None = Field(default=None, gt=0)
    tpot: float | None = Field(default=None, gt=0)
    e2e: float | None = Field(default=None, gt=0)
    percentile: Percentile = "p95"

    @property
    def limits(self) -> dict[str, float]:
        """The limits that are set, by metric name."""
        named = {"ttft": self.ttft, "tpot": self.tpot, "e2e": self.e2e}
        return {name: value for name, value in named.items() if value is not None}
