"""Rows of prefill and decode pools in a file of configurations: what the optional columns change."""

from __future__ import annotations

import pytest

from planner.api import estimate
from planner.job.points import parse_row
from planner.serving.estimated import Estimate

ROW = {
    "id": "row", "model": "meta-llama/Llama-3.1-8B", "gpu": "h100-sxm", "weights": "fp8", "mode": "pd",
    "engine": "vllm", "isl": "4000", "osl": "200", "concurrency": "64", "prefill_workers": "6",
    "decode_workers": "6",
}  # fmt: skip


def estimated(**columns: str) -> Estimate:
    (found,) = estimate([parse_row({**ROW, **columns}, 2)])
    return found


def seconds(found: Estimate) -> float:
    assert found.ttft is not None, found.reason
    return found.ttft


def test_requests_that_decode_does_not_admit_wait_for_a_whole_answer() -> None:
    # 12 requests in flight, 6 workers that admit one each: half of them wait while the others decode.
    limited = estimated(concurrency="12", decode_max_batch="1")
    assert limited.tpot is not None
    assert seconds(limited) == pytest.approx(199 * limited.tpot, rel=0.02)
    assert seconds(limited) > 5 * seconds(estimated(concurrency="12"))


def test_prefix_hits_spare_the_prefill() -> None:
    assert seconds(estimated(prefix_hit="0.9")) < seconds(estimated())


def test_a_slow_network_is_felt_less_when_the_cache_is_small_or_leaves_early() -> None:
    slow = seconds(estimated(nic_gbps="20"))
    assert slow > seconds(estimated())
    assert seconds(estimated(nic_gbps="20", kv_compression="4")) < slow
    assert seconds(estimated(nic_gbps="20", kv_transfer="layer")) < slow


@pytest.mark.parametrize(
    ("column", "value"),
    [("kv_transfer", "byte"), ("kv_compression", "0.5"), ("prefix_hit", "1.5"), ("decode_max_batch", "none"),
     ("nic_gbps", "-1")],
)  # fmt: skip
def test_a_wrong_value_is_named(column: str, value: str) -> None:
    found = estimated(**{column: value})
    assert found.status == "unsupported"
    assert column in found.reason
    assert value in found.reason
