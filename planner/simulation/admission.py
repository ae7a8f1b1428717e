"""Whether the request at the head of the queue may start: one function per family of policies.

Every test is re-evaluated when a request leaves, not in between (as engines do: room appears only then).
A rank that runs nothing always admits: a request that cannot fit alone was refused at its arrival.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING

from planner.simulation.request import Request
from planner.simulation.settings import Policy

if TYPE_CHECKING:
    from planner.simulation.rank import Rank


def may_start(rank: Rank, request: Request, blocks: int) -> bool:
    """Decide on ``request``, which would take ``blocks`` blocks of the pool now."""
    free = rank.total_blocks - rank.used_blocks - rank.pending_blocks
    if blocks + rank.left_free > free:
        return False
    if not rank.forecasts:
        return True  # vLLM and max-utilisation need the prompt only; no-evict counts its output in ``blocks``
    if rank.engine.policy is Policy.SGLANG:
        return reserve_share_fits(rank, request, free - blocks)
    return forecast_peak_fits(rank, request)


def reserve_share_fits(rank: Rank, request: Request, free_blocks: int) -> bool:
    """SGLang: free tokens after the prompt must hold ``ratio`` of all tokens still to be generated.

    ratio = new_token_ratio, falls linearly from output_reserve to its floor over reserve_steps decode
    iterations since the start or the last retraction (schedule_policy.py, PrefillAdder.rem_total_tokens).
    """
    to_come = rank.outstanding_tokens() + request.output - request.generated
    return free_blocks * rank.block >= rank.reserve_ratio() * to_come


def forecast_peak_fits(rank: Rank, request: Request) -> bool:
    """Past-Future: the forecast peak of the KV use, with ``request`` in it, fits the capacity.

    With the running requests sorted by tokens to go, longest first, the use when the i-th ends is
    M_i = sum_{j<=i} held_j + i * to_go_i; the peak is the largest M_i (the peak estimate of arXiv 2507.10150).
    """
    # The forecast is a guess: the watermark is the margin kept against its error.
    capacity = rank.total_blocks * rank.block * (1 - rank.engine.watermark)
    history = rank.history
    longest = history.lengths[-1] if history.lengths else history.longest
    if rank.context_tokens() + request.prompt + (len(rank.running) + 1) * longest <= capacity:
        return True  # even if all of them were the longest: no need to sort
    running = [*rank.running.values(), request]
    entries = sorted(((_to_go(rank, r), r.prompt + rank.generated_by(r)) for r in running), reverse=True)
    held, peak = 0, 0
    for position, (to_go, tokens) in enumerate(entries, 1):
        held += tokens
        peak = max(peak, held + position * to_go)
        if peak > capacity:
            return False
    return True


def _to_go(rank: Rank, request: Request) -> int:
    """Guessed tokens still to come: a fixed quantile of the observed output lengths above what it has already."""
    history, generated = rank.history.lengths, rank.generated_by(request)
    above = bisect_right(history, generated)
    if above == len(history):
        return max(1, rank.history.longest - generated) if not history else 1
    return history[above + int(request.quantile * (len(history) - above))] - generated
