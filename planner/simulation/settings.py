"""How an engine schedules, and how a pool of replicas is laid out: plain data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from planner.simulation.links import Transfer
from planner.simulation.steps import StepModel


class Policy(StrEnum):
    """The scheduling rules of an engine.

    VLLM : decodes first, prompts in chunks in the rest of the token budget, preemption by recompute.
    SGLANG : prefill has priority and stops decoding; admission reserves a share of the outputs to come.
    TRTLLM_NO_EVICT : in-flight batching; a request enters only if it can run to its last token.
    TRTLLM_MAX_UTILIZATION : in-flight batching; enters if the prompt fits now, paused when memory runs out.
    PAST_FUTURE : enters if the forecast peak of KV use fits (LightLLM's Past-Future scheduler, arXiv 2507.10150).
    STATIC : a batch is filled, run until every request of it ends, then the next one is filled.
    """

    VLLM = "vllm"
    SGLANG = "sglang"
    TRTLLM_NO_EVICT = "trtllm-no-evict"
    TRTLLM_MAX_UTILIZATION = "trtllm-max-utilization"
    PAST_FUTURE = "past-future"
    STATIC = "static"


class Routing(StrEnum):
    """How a request finds an attention rank among all ranks of all replicas of a pool."""

    ROUND_ROBIN = "round-robin"
    LEAST_LOADED = "least-loaded"
    PREFIX_AWARE = "prefix-aware"


EXCLUSIVE_PREFILL: Final = frozenset({Policy.SGLANG, Policy.STATIC})
RESERVES_OUTPUT: Final = frozenset({Policy.TRTLLM_NO_EVICT, Policy.STATIC})


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """Scheduling limits of one attention rank.

    Parameters
    ----------
    token_budget : most tokens of one iteration (vLLM max_num_batched_tokens, TensorRT-LLM max_num_tokens;
        SGLang: chunked_prefill_size, prompt tokens only). With pipeline stages: of one micro-batch.
    max_sequences : most running sequences, on top of the limit of the StepModel; None leaves that one.
    block_tokens : tokens per KV block.
    chunked : split prompts over iterations; without it a prompt enters whole, alone if above the budget.
    prefix_cache : reuse KV blocks by hash id, least recently used evicted first.
    hash_tokens : tokens per hash id (Mooncake 512, Qwen/Bailian 16).
    watermark : share of the blocks that admission leaves free.
    output_reserve, output_reserve_floor, reserve_steps : SGLang's new_token_ratio starts at the first, falls to
        the second over that many decode iterations and is raised again by each retraction.
    receive_interval : decode iterations between two looks at what has arrived (SGLang scheduler_recv_interval); an
        iteration that prefills is followed by a look, and an idle replica sees everything at once.
    """

    policy: Policy = Policy.VLLM
    token_budget: int = 8192
    max_sequences: int | None = None
    block_tokens: int = 16
    chunked: bool = True
    prefix_cache: bool = False
    hash_tokens: int = 512
    watermark: float = 0.0
    output_reserve: float = 0.7
    output_reserve_floor: float = 0.098
    reserve_steps: int = 600
    receive_interval: int = 1

    def __post_init__(self) -> None:
        """Check the ranges that the scheduler relies on."""
        counts = (self.token_budget, self.block_tokens, self.hash_tokens, self.reserve_steps, self.receive_interval)
        if min(counts) < 1:
            names = "token_budget, block_tokens, hash_tokens, reserve_steps and receive_interval"
            raise ValueError(f"expected {names} of at least 1")
        if self.max_sequences is not None and self.max_sequences < 1:
            raise ValueError("expected max_sequences of at least 1")
        if not 0 <= self.output_reserve_floor <= self.output_reserve <= 1 or not 0 <= self.watermark < 1:
            raise ValueError("expected 0 <= output_reserve_floor <= output_reserve <= 1 and 0 <= watermark < 1")
        if self.prefix_cache and self.hash_tokens % self.block_tokens:
            raise ValueError("expected hash_tokens to be a multiple of block_tokens")


@dataclass(frozen=True, slots=True)
class Drafts:
    """Speculative decoding: tokens of a sequence per iteration, ``mean`` and ``variance``, of ``checked`` that it
    computes."""

    mean: float
    variance: float
    checked: int

    def __post_init__(self) -> None:
        """Check ranges."""
        if not 1 <= self.mean <= self.checked or self.variance < 0:
            raise ValueError("expected 1 <= mean <= checked tokens and a variance of at least 0")


@dataclass(frozen=True, slots=True)
class Pool:
    """Equal replicas behind one router.

    Parameters
    ----------
    steps : iteration times and limits of one attention rank.
    engine : scheduling rules.
    replicas, attention_dp, stages : replicas; attention ranks of each, which wait for the slowest; pipeline
        stages, which keep that many micro-batches in flight (an iteration of one takes all stages).
    routing : how a request finds its rank.
    offset : constant front-end time before the first token (s); look_wait : what of it passes (s) until the scheduler
        looks at its queue, where that is simulated.
    drafts : what an iteration yields where tokens are drafted; None for one token per sequence.
    """

    steps: StepModel
    engine: EngineSettings = EngineSettings()
    replicas: int = 1
    attention_dp: int = 1
    stages: int = 1
    routing: Routing = Routing.LEAST_LOADED
    offset: float = 0.0
    look_wait: float = 0.0
    drafts: Drafts | None = None

    def __post_init__(self) -> None:
        """Check counts."""
        if min(self.replicas, self.attention_dp, self.stages) < 1 or not 0 <= self.look_wait <= self.offset:
            raise ValueError("expected replicas, attention_dp and stages of at least 1, 0 <= look_wait <= offset")


@dataclass(frozen=True, slots=True)
class Deployment:
    """What serves: one aggregated pool, or a prefill pool that hands its KV to a decode pool.

    Parameters
    ----------
    serve : the aggregated pool, or the decode pool of a split.
    prefill : the pool that computes prompts, or None.
    transfer : how the KV of a prompt of so many tokens goes from the prefill to the decode pool.
    answers_after_transfer : whether the user gets the first token from the decode pool, once a request starts there.
    one_of : the pool that serves is a part of the real one, which gets one of so many requests (mirrors.Mirrors).
    """

    serve: Pool
    prefill: Pool | None = None
    transfer: Callable[[int], Transfer] = lambda tokens: Transfer()
    answers_after_transfer: bool = False
    one_of: int = 1

    def __post_init__(self) -> None:
        """Only what a prefill pool hands over can go to a part of a pool."""
        if self.one_of < 1 or (self.one_of > 1 and self.prefill is None):
            raise ValueError("expected one_of of at least 1, and of more only behind a prefill pool")
