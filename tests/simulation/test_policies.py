"""What each scheduling policy does, on cases small enough to work out by hand."""

from __future__ import annotations

import pytest

from planner.simulation import AffineSteps, Deployment, EngineSettings, Policy, Pool, Request, Routing, simulate
from planner.simulation.links import Transfer
from planner.simulation.routing import Router
from planner.simulation.streams import ClosedLoop, Fixed

# One second per iteration, one more per 100 prompt tokens: times can be read off.
STEPS = AffineSteps(1.0, 0.0, 0.0, 0.01, 0.0, kv_tokens=1000, max_sequences=8)


class Given:
    def __init__(self, *requests):
        self.requests = requests

    def arrivals(self):
        return iter(self.requests)

    def after(self, request, finished):
        return None


def run(engine, *rows, steps=STEPS, **pool):
    requests = [Request(i, *row) for i, row in enumerate(rows)]
    simulate(Deployment(Pool(steps, engine, **pool)), Given(*requests))
    return requests


def test_one_request_pays_its_prefill_then_one_iteration_per_token():
    (a,) = run(EngineSettings(), (5.0, 100, 4))
    assert (a.first_token, a.finished) == (7.0, 10.0)


def test_an_arrival_waits_for_the_end_of_the_iteration():
    _, b = run(EngineSettings(), (0.0, 100, 10), (2.5, 100, 1))
    assert (b.admitted, b.first_token) == (3.0, 5.0)


def test_vllm_decodes_while_it_prefills_and_sglang_stops():
    rows = (0.0, 100, 3), (1.5, 200, 1)
    a, b = run(EngineSettings(policy=Policy.VLLM), *rows)
    assert (a.finished, b.first_token) == (6.0, 5.0)  # prefill 0-2, mixed iteration 2-5, one decode
    a, b = run(EngineSettings(policy=Policy.SGLANG), *rows)
    assert (a.finished, b.first_token) == (7.0, 5.0)  # the same prefill, then both decodes of a


def test_long_prompts_are_cut_to_the_token_budget():
    (a,) = run(EngineSettings(token_budget=64), (0.0, 160, 1))
    assert a.first_token == pytest.approx(3 + 1.6)  # 64 + 64 + 32 tokens
    (a,) = run(EngineSettings(token_budget=64, chunked=False), (0.0, 160, 1))
    assert a.first_token == pytest.approx(1 + 1.6)


def test_vllm_preempts_the_youngest_and_computes_its_output_again():
    steps = AffineSteps(1.0, 0.0, 0.0, 0.0, 0.0, kv_tokens=64, max_sequences=8)
    a, b = run(EngineSettings(block_tokens=16), (0.0, 30, 20), (0.0, 30, 10), steps=steps)
    # Both take 2 blocks. Token 33 of each needs a third one: 6 > 4, so b gives way and starts again after a.
    assert (a.preemptions, b.preemptions) == (0, 1)
    assert a.finished == 20.0 and b.finished > a.finished
    # Three tokens existed at the preemption; the second prefill gives the fourth at 21, six more follow.
    assert b.finished == 27.0


def test_guaranteed_no_evict_waits_instead():
    steps = AffineSteps(1.0, 0.0, 0.0, 0.0, 0.0, kv_tokens=64, max_sequences=8)
    a, b = run(EngineSettings(policy=Policy.TRTLLM_NO_EVICT), (0.0, 30, 20), (0.0, 30, 10), steps=steps)
    assert (a.preemptions, b.preemptions) == (0, 0)
    assert b.admitted == a.finished == 20.0


def test_static_batches_do_not_refill():
    a, b, c = run(EngineSettings(policy=Policy.STATIC), (0.0, 100, 3), (0.0, 100, 9), (1.0, 100, 1))
    assert (a.first_token, a.finished, b.finished) == (3.0, 5.0, 11.0)
    assert c.admitted == 11.0


def test_forecast_admission_preempts_less_than_optimistic_admission():
    counts = {}
    for policy in (Policy.VLLM, Policy.PAST_FUTURE):
        stream = ClosedLoop(64, Fixed(100), Fixed(200), 400)
        pool = Pool(AffineSteps(kv_tokens=6000), EngineSettings(policy=policy, watermark=0.03))
        counts[policy] = simulate(Deployment(pool), stream).preemptions
    assert counts[Policy.PAST_FUTURE] < counts[Policy.VLLM] / 4


def test_requests_that_never_fit_are_refused():
    stream = Given(Request(0, 0.0, 990, 11), Request(1, 0.0, 900, 10))
    result = simulate(Deployment(Pool(STEPS, EngineSettings(block_tokens=1))), stream)
    assert (result.refused, result.finished) == (1, 1)


def test_a_prefix_is_computed_once():
    engine = EngineSettings(prefix_cache=True, hash_tokens=64, block_tokens=16)
    a, b = run(engine, (0.0, 200, 1, (1, 2, 3)), (10.0, 200, 1, (1, 2, 9)))
    assert (a.hit_tokens, b.hit_tokens) == (0, 128)
    assert b.first_token == pytest.approx(10 + 1 + 0.72)


def test_the_last_token_of_a_cached_prompt_is_computed():
    engine = EngineSettings(prefix_cache=True, hash_tokens=64, block_tokens=16)
    _, b = run(engine, (0.0, 128, 1, (1, 2)), (10.0, 128, 1, (1, 2)))
    assert b.hit_tokens == 64


def test_old_prefixes_are_evicted_when_memory_is_short():
    engine = EngineSettings(prefix_cache=True, hash_tokens=64, block_tokens=16)
    steps = AffineSteps(1.0, 0.0, 0.0, 0.01, 0.0, kv_tokens=256, max_sequences=8)
    rows = (0.0, 130, 1, (1, 2)), (10.0, 130, 1, (3, 4)), (20.0, 130, 1, (1, 2)), (30.0, 130, 1, (1, 2))
    *_, c, d = run(engine, *rows, steps=steps)
    # 1 and 2 lay beside 3 and 4 (16 blocks), but the third block of the second request pushed out the older tail 2.
    assert (c.hit_tokens, d.hit_tokens) == (64, 128)


def test_attention_ranks_wait_for_the_slowest():
    rows = (0.0, 100, 3), (0.0, 300, 1)
    a, b = run(EngineSettings(), *rows, attention_dp=2)
    assert a.rank != b.rank
    assert a.first_token == b.first_token == 4.0
    assert a.finished == 6.0


def test_pipeline_stages_overlap_micro_batches():
    """Four prompts of one chunk each leave a 4-stage pipeline one stage time apart, not one iteration apart."""
    rows = [(0.0, 100, 1)] * 4
    out = run(EngineSettings(token_budget=100), *rows, stages=4)
    assert [r.first_token for r in out] == [2.0, 2.5, 3.0, 3.5]


def test_a_long_prompt_fills_the_pipeline():
    """(n + pp - 1) stage times for n chunks."""
    (a,) = run(EngineSettings(token_budget=100), (0.0, 400, 1), stages=4)
    assert a.first_token == pytest.approx((4 + 4 - 1) * 2.0 / 4)


@pytest.mark.parametrize(
    ("routing", "expected"),
    [(Routing.ROUND_ROBIN, [0, 1, 0, 1]), (Routing.LEAST_LOADED, [0, 1, 1, 1])],
)
def test_routing(routing, expected):
    rows = (0.0, 100, 50), (0.0, 100, 1), (10.0, 100, 1), (20.0, 100, 1)
    assert [r.rank for r in run(EngineSettings(), *rows, replicas=2, routing=routing)] == expected


def test_prefix_aware_routing_follows_the_cache():
    engine = EngineSettings(prefix_cache=True, hash_tokens=64)
    rows = (0.0, 130, 1, (1, 2)), (0.0, 130, 1, (3, 4)), (10.0, 130, 1, (3, 4)), (20.0, 130, 1, (9, 8))
    out = run(engine, *rows, replicas=2, routing=Routing.PREFIX_AWARE)
    assert [r.rank for r in out] == [0, 1, 1, 0]
    assert out[2].hit_tokens == 128


def test_split_pools_hand_over_after_the_transfer():
    serve, prefill = Pool(STEPS), Pool(STEPS)
    (a,) = requests = [Request(0, 0.0, 100, 3)]
    simulate(Deployment(serve, prefill, lambda tokens: Transfer(egress=tokens * 1e-3)), Given(*requests))
    assert a.first_token == 2.0
    assert a.finished == pytest.approx(2.0 + 0.1 + 2.0)


def test_caches_queue_for_the_link_of_the_rank_that_computed_them():
    # Both prompts end at 3 s; each cache keeps the link of that rank, or of the only receiver, busy for 5 s.
    for pools, busy in (((1, 2), Transfer(egress=5.0)), ((2, 1), Transfer(ingress=5.0))):
        prefill, serve = (Pool(STEPS, replicas=count) for count in pools)
        both = [Request(i, 0.0, 100, 1 + 1) for i in range(2)]
        simulate(Deployment(serve, prefill, lambda tokens, busy=busy: busy), Given(*both))
        done = 3.0 if pools == (1, 2) else 2.0
        assert [r.finished for r in both] == pytest.approx([done + 5 + 1, done + 10 + 1])


def test_what_a_prefill_hides_is_neither_the_last_piece_nor_what_the_link_is_too_slow_for():
    # 10 s on the wire beside 4 s of prefill in 5 pieces: 3.2 s are hidden, 6.8 are not; beside 40 s only a fifth shows.
    assert Transfer(10.0, 1.0, 4.0, 5.0).seconds(0.0) == pytest.approx(6.8)
    assert Transfer(10.0, 1.0, 40.0, 5.0, behind=2.0).seconds(5.0, 0.5) == pytest.approx(3.0 + 1.0)


def test_a_prefill_pool_needs_room_for_prompts_alone():
    small, large = AffineSteps(kv_tokens=112), AffineSteps(kv_tokens=1000)
    for prefill, serve, finished in ((small, large, 1), (large, small, 0), (small, small, 0)):
        deployed = Deployment(Pool(serve), Pool(prefill), lambda tokens: Transfer())
        assert simulate(deployed, Given(Request(0, 0.0, 100, 50))).finished == finished


def test_prompts_that_share_an_iteration_go_through_further_stages_together():
    # Alone a prompt takes 2 s in every stage, two together 3 s: so do the two stages behind the first one.
    for count, stage in ((1, 2.0), (2, 3.0)):
        requests = [Request(i, 0.0, 100, 2) for i in range(count)]
        deployed = Deployment(Pool(STEPS, replicas=2), Pool(STEPS), lambda tokens: Transfer(behind=2.0))
        simulate(deployed, Given(*requests))
        assert [r.finished for r in requests] == pytest.approx([3 * stage + 1.0] * count)


def test_assumed_prefix_hits_are_not_computed_but_held():
    (cold,) = run(EngineSettings(), (0.0, 100, 4))
    warm = Request(0, 0.0, 100, 4, found=60)
    simulate(Deployment(Pool(STEPS)), Given(warm))
    assert (cold.first_token, warm.first_token) == (2.0, 1.4)
    assert warm.hit_tokens == 60
    # 1,000 tokens of memory hold nine such requests at once, whatever share of their prompts is found.
    many = [Request(i, 0.0, 100, 4, found=60) for i in range(12)]
    simulate(Deployment(Pool(AffineSteps(1.0, 0.0, 0.0, 0.01, 0.0, kv_tokens=1000, max_sequences=99))), Given(*many))
    assert sum(r.admitted == 0.0 for r in many) in (8, 9)


def test_the_first_token_of_a_split_comes_when_it_starts_to_decode():
    # One decode slot: the second request has its cache at 4 s, but the first decodes until 6 s.
    serve, prefill = Pool(AffineSteps(1.0, 0.0, 0.0, 0.01, 0.0, kv_tokens=1000, max_sequences=1)), Pool(STEPS)
    both = [Request(i, 0.0, 100, 4) for i in range(2)]
    split = Deployment(serve, prefill, lambda tokens: Transfer(), answers_after_transfer=True)
    simulate(split, Given(*both))
    assert [r.first_token for r in both] == [3.0, 6.0]
    assert [r.finished for r in both] == [6.0, 9.0]
    assert both[1].waited == 3.0


def test_prompts_go_where_fewest_wait_not_where_fewest_are_computed():
    """Ranks of a replica iterate together: by the sum of both, those that compute much would get nothing for the next
    iteration, and each iteration lasts as long as its fullest rank."""
    router = Router(Pool(STEPS, attention_dp=2), 2, None)
    assert [router.choose(Request(i, 0.0, 10, 1)) for i in range(4)] == [0, 1, 0, 1]
    router.loads[0] -= 2 * router.queued  # both of rank 0 are admitted
    assert [router.choose(Request(i, 1.0, 10, 1)) for i in range(3)] == [0, 0, 1]
