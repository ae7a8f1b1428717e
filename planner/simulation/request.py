"""One request, from arrival to its last token."""

from __future__ import annotations

from collections.abc import Sequence


class Request:
    """What is asked (first block of slots) and where it stands (second block). Times in seconds, lengths in tokens.

    Parameters
    ----------
    number : position in the stream, unique; below zero for background load (full_swing), which leaves no record.
    arrival : moment at which the user sends it.
    prompt, output : tokens in and out, both at least 1; the first output token ends the prefill.
    hash_ids : one id per ``hash_tokens`` tokens of the prompt (and, if known, of the output after it); equal
        ids mean an equal prefix up to and including that block. Only blocks that are full can be reused.
    session, turn : conversation that it belongs to (-1: none) and its turn, from 0.
    found : prompt tokens whose KV is taken to be there wherever it goes, without a hash; at least one is computed.
    """

    __slots__ = (
        "admitted",
        "arrival",
        "blocks",
        "cached_blocks",
        "computed",
        "finish_at",
        "finished",
        "first_token",
        "found",
        "fresh_blocks",
        "full_blocks",
        "generated",
        "hash_ids",
        "hit_tokens",
        "lane",
        "last_token",
        "number",
        "output",
        "phase",
        "preemptions",
        "prompt",
        "quantile",
        "rank",
        "ready",
        "seen_late",
        "session",
        "skew",
        "target",
        "turn",
        "waited",
    )

    def __init__(
        self,
        number: int,
        arrival: float,
        prompt: int,
        output: int,
        hash_ids: Sequence[int] = (),
        session: int = -1,
        turn: int = 0,
        found: int = 0,
    ) -> None:
        self.number = number
        self.arrival = arrival
        self.prompt = prompt
        self.output = output
        self.hash_ids = hash_ids
        self.session = session
        self.turn = turn
        self.found = min(found, prompt - 1)
        self.rank = -1  # attention rank that serves it, numbered over all replicas of the pool
        self.lane = -1  # pipeline micro-batch in which it decodes; -1 while it does not
        self.admitted = -1.0
        self.first_token = -1.0
        self.last_token = -1.0
        self.finished = -1.0
        self.computed = 0  # prompt tokens whose KV exists
        self.target = prompt  # tokens to prefill; more than the prompt after a preemption
        self.generated = 0
        self.finish_at = 0  # decode count of its lane at which the last token exists
        self.phase = 0  # residue of the lane's decode count at which it needs a new block
        self.blocks = 0  # private engine blocks, while they do not grow one by one
        self.full_blocks = 0  # full hash blocks of the prompt
        self.cached_blocks = 0  # of these, pinned in the prefix cache
        self.fresh_blocks = 0  # of these, allocated but not yet published
        self.hit_tokens = 0
        self.preemptions = 0
        self.seen_late = False  # it came while decodes ran and waits for the scheduler to look at its queue
        self.waited = 0.0  # after the prompt was computed: for links between two pools, and to start in the second one
        self.skew = 0.0  # delay of its lane behind the first one in the pipeline
        self.ready = False  # its KV comes from a prefill pool: nothing to compute
        # Low-discrepancy (golden ratio): reproducible without a random generator.
        self.quantile = (
            number * 0.6180339887498949 % 1.0
        )  # position of its guessed output length in the distribution (past-future admission)

    def __repr__(self) -> str:
        """Show what identifies it in a failing test."""
        return f"Request({self.number}, t={self.arrival:.6g}, {self.prompt}+{self.output}, generated={self.generated})"
