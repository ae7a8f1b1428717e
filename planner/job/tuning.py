"""What a user knows of an engine's set-up beyond its profile: overlap of messages, balance of experts."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from planner.errors import InputError
from planner.units import parse_fraction


class Tuning(BaseModel):
    """Departures from the engine profile; None leaves what the profile says.

    Attributes
    ----------
    communication_overlap : share of tensor-parallel communication that is hidden behind matrix products, [0, 1].
    two_batch_overlap : whether an iteration runs as two halves, one of which computes while the other's tokens travel
        to and from their experts.
    redundant_experts : further copies of busy experts on each expert-parallel rank.
    expert_imbalance : tokens of the busiest expert-parallel rank over the mean, at least 1, without redundant copies.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    communication_overlap: float | None = Field(default=None, ge=0, le=1)
    two_batch_overlap: bool | None = None
    redundant_experts: int | None = Field(default=None, ge=0, le=64)
    expert_imbalance: float | None = Field(default=None, ge=1, le=64)


def parse_tuning(overlap: str | None, two_batch: bool, redundant: int | None, imbalance: float | None) -> Tuning:
    """Read ``--tp-overlap``, ``--two-batch-overlap``, ``--redundant-experts`` and ``--expert-imbalance``.

    Raises InputError naming the option.
    """
    share = None if overlap is None else parse_fraction(overlap, "--tp-overlap")
    if share is not None and not 0 <= share <= 1:
        raise InputError(f"--tp-overlap {overlap}: expected a share of 0 to 1")
    if redundant is not None and not 0 <= redundant <= 64:
        raise InputError(f"--redundant-experts {redundant}: expected 0 to 64 copies on each rank")
    if imbalance is not None and not 1 <= imbalance <= 64:
        raise InputError(f"--expert-imbalance {imbalance:g}: expected the busiest rank over the mean, 1 to 64")
    return Tuning(
        communication_overlap=share, two_batch_overlap=two_batch or None, redundant_experts=redundant,
        expert_imbalance=imbalance,
    )  # fmt: skip
