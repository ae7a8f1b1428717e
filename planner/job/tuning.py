"""What a user knows of an engine's set-up beyond its profile: overlap of messages, balance of experts, the way caches
travel."""

from __future__ import annotations

from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict, Field

from planner.errors import InputError
from planner.units import parse_fraction

Pieces = Literal["request", "chunk", "layer"]
PIECES: tuple[Pieces, ...] = get_args(Pieces)


class Tuning(BaseModel):
    """Departures from the engine profile; None leaves what the profile says.

    Attributes
    ----------
    communication_overlap : share of tensor-parallel communication that is hidden behind matrix products, [0, 1].
    two_batch_overlap : whether an iteration runs as two halves, one of which computes while the other's tokens travel
        to and from their experts.
    redundant_experts : further copies of busy experts on each expert-parallel rank.
    expert_imbalance : tokens of the busiest expert-parallel rank over the mean, at least 1, without redundant copies.
    kv_transfer : how the cache of a prompt leaves a prefill worker: whole, by chunk or by layer as it is computed.
    kv_compression : bytes of a cache over its bytes on the wire between prefill and decode workers, at least 1.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    communication_overlap: float | None = Field(default=None, ge=0, le=1)
    two_batch_overlap: bool | None = None
    redundant_experts: int | None = Field(default=None, ge=0, le=64)
    expert_imbalance: float | None = Field(default=None, ge=1, le=64)
    kv_transfer: Pieces | None = None
    kv_compression: float | None = Field(default=None, ge=1, le=64)


def parse_tuning(
    overlap: str | None,
    two_batch: bool,
    redundant: int | None,
    imbalance: float | None,
    kv_transfer: str | None = None,
    kv_compression: float | None = None,
) -> Tuning:
    """Read ``--tp-overlap``, ``--two-batch-overlap``, ``--redundant-experts``, ``--expert-imbalance``,
    ``--kv-transfer`` and ``--kv-compression``.

    Raises InputError naming the option.
    """
    pieces = next((name for name in PIECES if name == kv_transfer), None)
    if kv_transfer is not None and pieces is None:
        raise InputError(f"--kv-transfer {kv_transfer}: expected {', '.join(PIECES)}", hint="layer hides the most")
    if kv_compression is not None and not 1 <= kv_compression <= 64:
        raise InputError(f"--kv-compression {kv_compression:g}: expected bytes before over bytes sent, 1 to 64")
    share = None if overlap is None else parse_fraction(overlap, "--tp-overlap")
    if share is not None and not 0 <= share <= 1:
        raise InputError(f"--tp-overlap {overlap}: expected a share of 0 to 1")
    if redundant is not None and not 0 <= redundant <= 64:
        raise InputError(f"--redundant-experts {redundant}: expected 0 to 64 copies on each rank")
    if imbalance is not None and not 1 <= imbalance <= 64:
        raise InputError(f"--expert-imbalance {imbalance:g}: expected the busiest rank over the mean, 1 to 64")
    return Tuning(
        communication_overlap=share, two_batch_overlap=two_batch or None, redundant_experts=redundant,
        expert_imbalance=imbalance, kv_transfer=pieces, kv_compression=kv_compression,
    )  # fmt: skip
