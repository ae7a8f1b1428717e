"""Measured kernels stay within their band; skipped where the measurements are not at hand."""

import sys
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))
operator_rows = pytest.importorskip("operator_rows")
if not operator_rows.OPS.is_dir():
    pytest.skip("measured operators are not at hand", allow_module_level=True)

from planner.cost.efficiency import load_efficiency  # noqa: E402

# Median over GPUs of the mean absolute error in %, as fitted plus one point.
BANDS = {
    "gemm.bf16": 10.1, "gemm.fp8": 7.6, "gemm.fp8_block": 11.0, "gemm.fp4": 15.3, "prefill": 12.8,
    "decode": 11.8, "latent_prefill": 8.7, "latent_decode": 12.4, "moe.bf16": 17.6, "moe.fp8": 15.9,
    "moe.fp8_block": 12.7, "moe.fp4": 16.2, "moe.fp4_latency": 17.9, "moe.fp8_w4": 21.5,
    "collective": 11.2, "custom": 10.3,
}  # fmt: skip


@pytest.mark.parametrize("kind", sorted(BANDS))
def test_operator_error_stays_in_its_band(kind):
    rows = operator_rows.load_rows(kind)
    skipped = {"L40S"} if kind in ("collective", "custom") else set()
    if kind.startswith("latent"):
        skipped = {"L40S", "A100-SXM-80GB"}
    errors = []
    for gpu, table in rows.items():
        if gpu in skipped:
            continue
        predicted = operator_rows.predict(table, gpu, load_efficiency(operator_rows.family(gpu)))
        assert np.all(predicted > 0)
        errors.append(np.mean(np.abs(predicted / table.seconds - 1)) * 100)
    assert np.median(errors) <= BANDS[kind]


@pytest.mark.parametrize("version", ["1.0.0", "1.3.0rc20"])
@pytest.mark.parametrize("tokens", [1, 4, 64, 4096])
def test_every_token_of_a_drawn_batch_reaches_its_experts(tokens, version):
    ranks = operator_rows._draw(tokens, 8, 256, 8, 1.2, version, 0)
    assert ranks.min() >= 0 and ranks.max() <= tokens
    assert np.all(ranks.sum((1, 2)) <= 8 * tokens)
    if version != "1.0.0":  # what one expert cannot take goes to others
        assert np.all(ranks.sum((1, 2)) == 8 * tokens)
    elif tokens == 1:  # all that rounding left over meets on the first rank
        assert ranks.sum(2).max(1).mean() > 7
