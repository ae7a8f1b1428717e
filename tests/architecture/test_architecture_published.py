"""Parameters, cache and work per token against what papers, model cards and safetensors counts say."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from architecture_data import DATA, read_rows

from planner.architecture.catalog import load_model
from planner.architecture.demand import attention_core_flops, attention_linear_flops, ffn_flops, kv_bytes_read
from planner.architecture.model import Attention, Model
from planner.architecture.parameters import active_parameters, total_parameters
from planner.architecture.state import kv_bytes, kv_bytes_per_token, kv_growth_per_token

MODELS = read_rows(DATA / "published_models.csv")
DEMAND = read_rows(DATA / "step3_demand.csv")
COUNTED = read_rows(DATA / "safetensors_counts.csv")
AGREED = [row for row in MODELS if row["agreement"] != "MISMATCH"]


@pytest.mark.parametrize("row", AGREED, ids=lambda row: row["id"])
def test_total_parameters_are_as_published(row: dict[str, str]) -> None:
    total = total_parameters(load_model(row["id"]))
    published = float(row["total_billions"]) * 1e9
    # a count given to nine decimals comes from the files themselves, so it is met to the parameter
    exact = row["agreement"] == "exact" and len(row["total_billions"].partition(".")[2]) >= 8
    assert total == pytest.approx(published, rel=3e-5 if exact else 0.01)


@pytest.mark.parametrize("row", COUNTED, ids=lambda row: row["id"])
def test_total_parameters_are_exactly_what_the_files_hold(row: dict[str, str]) -> None:
    assert total_parameters(load_model(row["id"])) == int(row["total"])


@pytest.mark.parametrize("row", MODELS, ids=lambda row: row["id"])
def test_active_parameters_are_those_that_a_token_uses(row: dict[str, str]) -> None:
    # 1e-4 covers biases of norms and q/k norms, which the reference leaves out for Falcon, OLMo 2, Phi-3.5-MoE ...
    assert active_parameters(load_model(row["id"])) == pytest.approx(int(row["active"]), rel=1e-4)


def test_active_parameters_are_mostly_exact() -> None:
    same = sum(active_parameters(load_model(row["id"])) == int(row["active"]) for row in MODELS)
    assert same >= 70


@pytest.mark.parametrize("row", MODELS, ids=lambda row: row["id"])
def test_kv_bytes_per_token_are_exact(row: dict[str, str]) -> None:
    assert kv_bytes_per_token(load_model(row["id"])) == int(row["kv_bytes_per_token"])


@pytest.mark.parametrize(
    ("name", "growth", "capped"),
    [
        # global layers / all layers, window: 10/62 of 1024, 4/26 of 512, 23/46 of 4096, 12/24 of 128
        ("google/gemma-3-27b", 81_920, 436_207_616),
        ("google/gemma-3-1b", 4_096, 11_534_336),
        ("google/gemma-2-27b", 188_416, 771_751_936),
        ("openai/gpt-oss-20b", 24_576, 3_145_728),
    ],
)
def test_windows_cap_the_cache(name: str, growth: int, capped: int) -> None:
    model = load_model(name)
    assert kv_growth_per_token(model) == growth
    assert kv_bytes(model, 1e6) - 1e6 * growth == capped


@pytest.mark.parametrize("row", DEMAND, ids=lambda row: f"{row['id']}-{row['quantity']}-{row['context']}")
def test_work_per_decoded_token_is_that_of_step3(row: dict[str, str]) -> None:
    model, context = load_model(row["id"]), float(row["context"])
    computed = {
        "kv_bytes": lambda: float(kv_bytes_read(model, context, 1.0)),
        "mixed_kv_bytes": lambda: _fp8_cache_but_bf16_in_full_layers(model, context),
        "core_flops": lambda: float(attention_core_flops(model, context, latent_values_with_rope=True)),
        "linear_flops": lambda: attention_linear_flops(model),
        "ffn_flops": lambda: ffn_flops(model),
    }[row["quantity"]]()
    assert computed == pytest.approx(float(row["value"]), rel=0.005)  # three digits are printed


def _fp8_cache_but_bf16_in_full_layers(model: Model, context: float) -> float:
    def is_full(layer: object) -> bool:
        mixer = getattr(layer, "mixer", None)
        return isinstance(mixer, Attention) and mixer.window is None

    full = replace(model, layers=tuple(layer for layer in model.layers if is_full(layer)))
    rest = replace(model, layers=tuple(layer for layer in model.layers if not is_full(layer)))
    return float(kv_bytes_read(full, context, 2.0) + kv_bytes_read(rest, context, 1.0))


def test_every_measured_and_listed_model_resolves(shared_catalog: Path) -> None:
    listed = {row["hf_id"] for row in read_rows(shared_catalog / "models.csv")}
    listed |= {row["model"] for row in read_rows(shared_catalog / "extra_models.csv")}
    measured = shared_catalog.parent / "measured" / "e2e_points.csv"
    listed |= {row["model"] for row in read_rows(measured)}
    assert all(load_model(name).layers for name in listed)


def test_known_answers_hold(shared_catalog: Path) -> None:
    ids = {row["name"]: row["hf_id"] for row in read_rows(shared_catalog / "models.csv")}
    answers = [
        row for row in read_rows(shared_catalog / "known_answers.csv") if row["quantity"] == "kv_bytes_per_token_bf16"
    ]
    wrong = [row["model"] for row in answers if kv_bytes_per_token(load_model(ids[row["model"]])) != int(row["value"])]
    assert answers and not wrong
