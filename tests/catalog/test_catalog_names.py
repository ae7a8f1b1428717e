"""An accelerator answers to its id and aliases, however they are written."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.catalog import load_hardware
from planner.catalog.names import NameIndex
from planner.errors import UnknownNameError

CATALOG = load_hardware()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("H100", "h100-sxm"),
        ("h100_sxm", "h100-sxm"),
        ("NVIDIA H100 80GB HBM3", "h100-sxm"),
        ("NVIDIA H100 PCIe", "h100-pcie"),
        ("NVIDIA H100 NVL", "h100-nvl"),
        ("NVIDIA H200", "h200-sxm"),
        ("NVIDIA B200", "b200-sxm"),
        ("NVIDIA GB200", "gb200"),
        ("NVIDIA A100-SXM4-80GB", "a100-sxm-80gb"),
        ("NVIDIA A100-SXM4-40GB", "a100-sxm-40gb"),
        ("NVIDIA A100 80GB PCIe", "a100-pcie-80gb"),
        ("Tesla V100-SXM2-32GB", "v100-sxm-32gb"),
        ("NVIDIA GH200 480GB", "gh200"),
        ("NVIDIA GeForce RTX 4090", "rtx-4090"),
        ("AMD Instinct MI300X", "mi300x"),
        ("mi 355x", "mi355x"),
        ("TPU v5e", "tpu-v5e"),
        ("Intel Gaudi 3", "gaudi3"),
        ("a800", "a800-sxm-80gb"),
        ("A100", "a100-sxm-80gb"),
    ],
)
def test_names_as_drivers_and_people_write_them(name: str, expected: str) -> None:
    assert CATALOG.accelerator(name).id == expected


def test_unknown_name_suggests_near_ones_and_the_listing() -> None:
    with pytest.raises(UnknownNameError) as caught:
        CATALOG.accelerator("h100-sxn")
    assert "h100-sxm" in str(caught.value.hint)
    assert "planner catalog gpus" in str(caught.value.hint)


@pytest.mark.parametrize("name", ["", "---", "nvidia", "x" * 5_000_000, "h100\nrm -rf", "é"])
def test_hostile_names_are_refused_in_one_short_line(name: str) -> None:
    with pytest.raises(UnknownNameError) as caught:
        CATALOG.accelerator(name)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 200


@given(st.sampled_from(sorted(CATALOG.accelerators)), st.sampled_from(["-", "_", " ", ""]), st.booleans())
def test_spelling_of_an_id_does_not_matter(name: str, separator: str, upper: bool) -> None:
    written = name.replace("-", separator)
    assert CATALOG.accelerator(written.upper() if upper else written).id == name


@given(st.permutations(list(CATALOG.accelerators.values())))
def test_resolution_does_not_depend_on_catalog_order(order: list) -> None:  # type: ignore[type-arg]
    index = NameIndex(order)
    assert index.as_mapping() == NameIndex(CATALOG.accelerators.values()).as_mapping()
