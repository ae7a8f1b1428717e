"""Speculative decoding: tokens per cycle, and the draft length that load allows."""

from __future__ import annotations

import numpy as np
import pytest
from planner_cases import one, replica

from planner.serving.decode import decode_seconds
from planner.serving.lengths import Lengths
from planner.serving.speculation import Draft, best_length, mtp_draft, speculative_tpot

TARGET = replica("meta-llama/Llama-3.1-8B")
LENGTHS = Lengths(1000.0, 200.0)
BATCHES = np.array([1.0, 64.0, 1000.0])


def test_tokens_of_a_cycle_follow_the_geometric_law() -> None:
    # (1 - 0.8^5)/(1 - 0.8) = 3.3616; by position 1 + 0.9 + 0.9*0.5.
    assert Draft((0.8,), 0.0).tokens(4) == pytest.approx(3.3616)
    assert Draft((0.9, 0.5), 0.0).tokens(2) == pytest.approx(2.35)
    assert Draft((0.8,), 0.0).tokens(0) == 1.0


def test_no_draft_is_the_plain_iteration() -> None:
    plain = decode_seconds(TARGET, one(1, 1, 1, 1), BATCHES, LENGTHS)
    assert speculative_tpot(TARGET, one(1, 1, 1, 1), BATCHES, LENGTHS, Draft((0.7,), 0.1))[0] == pytest.approx(plain)


def test_drafting_pays_alone_and_hurts_under_load() -> None:
    # Short contexts: at 1,000 requests the matrices are bound by arithmetic, and each rejected token costs its share.
    lengths = best_length(TARGET, one(1, 1, 1, 1), BATCHES, Lengths(64.0, 32.0), Draft((0.5,), 0.05))
    assert lengths[0] >= 2
    assert lengths[0] >= lengths[1] >= lengths[2]
    assert lengths[2] == 0


def test_a_draft_that_is_never_accepted_is_not_made() -> None:
    assert not best_length(TARGET, one(1, 1, 1, 1), BATCHES, LENGTHS, mtp_draft(TARGET, [0.0])).any()


def test_rates_outside_zero_to_one_are_refused() -> None:
    with pytest.raises(ValueError, match="acceptance"):
        Draft((1.2,), 0.1)
