"""Names, aliases, user folders, and the TOML form of a model."""

from __future__ import annotations

import time
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

from planner.architecture import catalog
from planner.architecture.catalog import catalog_dir, known_models, load_model, slug, write_index
from planner.architecture.distill import distill, restore
from planner.architecture.model import Model
from planner.errors import InputError, UnknownNameError


def test_the_catalog_is_large_and_every_file_says_where_it_is_from() -> None:
    models = [restore(file.read_text(), file.name) for file in catalog_dir().glob("*--*.toml")]
    assert len(models) >= 70
    assert all(model.source and model.layers and model.id for model in models)


def test_files_are_named_by_their_id_and_written_as_distill_writes() -> None:
    for file in catalog_dir().glob("*--*.toml"):
        model = restore(file.read_text(), file.name)
        assert file.stem == slug(model.id)
        assert file.read_text() == distill(model)


def test_the_index_is_what_the_files_say(tmp_path: Path) -> None:
    for file in catalog_dir().glob("*--*.toml"):
        (tmp_path / file.name).write_text(file.read_text())
    write_index(tmp_path)
    assert (tmp_path / "index.toml").read_text() == (catalog_dir() / "index.toml").read_text()


@pytest.mark.parametrize(
    ("alias", "model_id"),
    [
        ("meta-llama/Llama-3.1-70B", "meta-llama/Llama-3.1-70B"),
        ("meta-llama/Meta-Llama-3.1-70B", "meta-llama/Llama-3.1-70B"),
        ("META-LLAMA/llama-3.1-70b-instruct", "meta-llama/Llama-3.1-70B"),
        ("llama-3.1-70b", "meta-llama/Llama-3.1-70B"),
        ("nvidia/DeepSeek-R1-FP4", "deepseek-ai/DeepSeek-R1"),
        (" deepseek-r1 ", "deepseek-ai/DeepSeek-R1"),
    ],
)
def test_a_model_has_many_names(alias: str, model_id: str) -> None:
    assert load_model(alias).id == model_id


def test_an_unknown_name_suggests_near_ones() -> None:
    with pytest.raises(UnknownNameError, match="unknown model") as caught:
        load_model("meta-llama/Llama-3.1-71B")
    assert "llama-3.1-70b" in str(caught.value.hint)
    assert "planner catalog models" in str(caught.value.hint)


@pytest.mark.parametrize("name", ["", "..", "index", "../models_catalog/index", "a\x00b", "x" * 5000, "./none.json"])
def test_a_name_that_is_none_is_refused_in_one_line(name: str) -> None:
    with pytest.raises(InputError) as caught:
        load_model(name)
    assert "\n" not in str(caught.value)


def test_a_folder_of_the_user_adds_and_overrides_models(tmp_path: Path) -> None:
    mine = replace(load_model("gpt2"), id="me/mine", aliases=("my-model",), source="made up")
    (tmp_path / "me--mine.toml").write_text(distill(mine))
    assert load_model("me/mine", [tmp_path]) == mine
    assert load_model("MY-MODEL", [tmp_path]) == mine
    assert load_model(str(tmp_path / "me--mine.toml")) == mine
    assert "me/mine" in known_models([tmp_path])
    assert "me/mine" not in known_models()


def test_resolving_a_name_is_quick() -> None:
    catalog._index.cache_clear()
    start = time.process_time()
    load_model("nvidia/DeepSeek-R1-FP4")
    assert time.process_time() - start < 0.1  # a few milliseconds; room for a loaded machine


@pytest.mark.parametrize(
    "text",
    ["", "not toml [", "hidden = 1", 'layer = 3\norder = []\nid = "x"', "[layer.a]\n[mixer.b]\nkind = 'magic'"],
)
def test_a_broken_model_file_is_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"mine\.toml"):
        restore(text, "mine.toml")


def test_a_negative_size_in_a_model_file_is_refused(llama: Model) -> None:
    with pytest.raises(InputError, match="hidden"):
        restore(distill(llama).replace("hidden = 4096", "hidden = -4096"), "mine.toml")


def test_the_order_of_layers_is_written_as_short_runs() -> None:
    table = tomllib.loads(distill(load_model("openai/gpt-oss-120b")))
    assert table["order"] == [[18, "sliding_attention_moe", "attention_moe"]]


@pytest.fixture
def llama() -> Model:
    return load_model("meta-llama/Llama-3.1-8B")
