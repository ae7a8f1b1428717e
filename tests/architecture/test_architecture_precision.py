"""Weight formats: what a named precision converts, and how many bytes that takes."""

from __future__ import annotations

import pytest

from planner.architecture.catalog import known_models, load_model
from planner.architecture.model import Part
from planner.architecture.parameters import total_parameters
from planner.architecture.precision import PRECISIONS, available_weights, weight_bytes, weight_formats
from planner.errors import UnknownNameError

GIB = 1 << 30


def names(model: str, weights: str) -> list[str]:
    formats = weight_formats(load_model(model), weights)
    return [formats[part].name for part in (Part.ATTENTION, Part.FFN, Part.EXPERTS)]


@pytest.mark.parametrize(
    ("model", "weights", "expected"),
    [
        ("llama-3.1-70b", "bf16", ["bf16"] * 3),
        ("llama-3.1-70b", "fp8", ["fp8"] * 3),
        ("llama-3.1-70b", "fp4", ["nvfp4"] * 3),
        ("llama-3.1-70b", "checkpoint", ["bf16"] * 3),
        ("deepseek-r1", "checkpoint", ["fp8_block"] * 3),
        ("deepseek-r1", "fp8", ["fp8_block"] * 3),  # as published
        ("deepseek-r1", "fp4", ["bf16", "nvfp4", "nvfp4"]),  # latent attention stays wide
        ("gpt-oss-120b", "fp4", ["bf16", "bf16", "mxfp4"]),  # as published
        ("gpt-oss-120b", "bf16", ["bf16"] * 3),
        ("kimi-k2.5", "int4", ["bf16", "bf16", "int4_g32"]),
    ],
)
def test_a_precision_converts_what_published_checkpoints_convert(model: str, weights: str, expected: list[str]) -> None:
    assert names(model, weights) == expected


@pytest.mark.parametrize("weights", sorted(set(PRECISIONS) - {"checkpoint"}))
def test_embedding_head_and_router_stay_wide(weights: str) -> None:
    formats = weight_formats(load_model("mixtral-8x7b"), weights)
    assert {formats[part].bytes_per_weight for part in (Part.EMBEDDING, Part.HEAD, Part.ROUTER)} == {2.0}


def test_bf16_takes_two_bytes_for_each_parameter() -> None:
    for name in ("llama-3.1-8b", "deepseek-v3", "qwen3-next-80b-a3b"):
        model = load_model(name)
        assert sum(weight_bytes(model, "bf16").values()) == pytest.approx(2 * total_parameters(model))


@pytest.mark.parametrize(
    ("model", "published_gib"),
    [("gpt-oss-120b", 60.8), ("gpt-oss-20b", 12.8)],  # model cards of openai/gpt-oss-120b and gpt-oss-20b
)
def test_checkpoints_have_their_published_size(model: str, published_gib: float) -> None:
    size = sum(weight_bytes(load_model(model), "checkpoint").values())
    assert size / GIB == pytest.approx(published_gib, rel=0.01)


def test_the_arithmetic_of_a_format_is_named_apart_from_its_storage() -> None:
    model = load_model("llama-3.1-8b")
    math = {weights: weight_formats(model, weights)[Part.FFN].math for weights in PRECISIONS}
    assert math["fp8"] == "fp8" and math["fp4"] == "fp4"
    assert {math[weights] for weights in ("int4", "int8", "mxfp4", "bf16")} == {"bf16"}


def test_narrower_precisions_take_fewer_bytes_in_every_model() -> None:
    for name in known_models():
        model = load_model(name)
        wide, middle, narrow = (sum(weight_bytes(model, weights).values()) for weights in ("bf16", "fp8", "fp4"))
        assert wide > middle
        if model.checkpoint.weights != "fp8_block":  # fp4 leaves latent attention wide, block fp8 does not
            assert wide > narrow


@pytest.mark.parametrize(
    ("model", "first"),
    [("llama-3.1-70b", "bf16"), ("deepseek-r1", "fp8"), ("gpt-oss-120b", "fp4"), ("kimi-k2.5", "int4")],
)
def test_a_search_starts_from_the_published_precision_and_never_widens(model: str, first: str) -> None:
    choices = available_weights(load_model(model))
    assert choices[0] == first
    assert first == "bf16" or "bf16" not in choices


def test_an_unknown_precision_is_refused() -> None:
    with pytest.raises(UnknownNameError, match="weight precision"):
        weight_formats(load_model("gpt2"), "fp3")
