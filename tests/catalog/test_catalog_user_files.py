"""A user's folder adds and overrides entries; a bad file is reported in one line with file, entry and key."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from planner.catalog import HardwareCatalog, load_hardware
from planner.catalog.files import catalog_hash, catalog_root, read_built_in
from planner.errors import InputError
from planner.units import GIB, MIB

MINIMAL = """
[accelerators.my-gpu]
memory_gib = 96
memory_bandwidth_gbs = 4000
bf16_tflops = 400
"""


def load(folder: Path, text: str, name: str = "mine.toml") -> HardwareCatalog:
    (folder / name).write_text(text, encoding="utf-8")
    return load_hardware([folder])


def test_three_numbers_add_a_gpu(tmp_path: Path) -> None:
    gpu = load(tmp_path, MINIMAL).accelerator("My GPU")
    assert gpu.memory == 96 * GIB
    assert gpu.memory_bandwidth == 4e12
    assert gpu.flops == {"bf16": 400e12}


def test_what_a_user_leaves_out_has_documented_defaults(tmp_path: Path) -> None:
    gpu = load(tmp_path, MINIMAL).accelerator("my-gpu")
    assert (gpu.family, gpu.gpus_per_node, gpu.compute_units) == ("generic", 8, 128)
    assert (gpu.scale_up.kind, gpu.scale_up.bandwidth, gpu.scale_up.domain_size) == ("pcie5", 64e9, 8)
    assert gpu.network_bandwidth == 12.5e9
    assert gpu.confidence == "user" and gpu.sources["all"]


def test_an_entry_with_a_known_id_changes_only_what_it_names(tmp_path: Path) -> None:
    catalog = load(tmp_path, "[accelerators.h100-sxm]\nmemory_gib = 64\nscale_up = { gbs_per_gpu = 200 }\n")
    changed, shipped = catalog.accelerator("H100"), load_hardware().accelerator("H100")
    assert changed.memory == 64 * GIB  # the shipped entry says it in MiB: one replaces the other
    assert changed.scale_up.bandwidth == 200e9
    assert changed.scale_up.kind == shipped.scale_up.kind
    assert changed.flops == shipped.flops
    assert "user" in changed.sources["all"]


def test_later_folders_win(tmp_path: Path) -> None:
    folders = []
    for size in (64, 72):
        folder = tmp_path / str(size)
        folder.mkdir()
        (folder / "a.toml").write_text(f"[accelerators.h100-sxm]\nmemory_gib = {size}\n")
        folders.append(folder)
    assert load_hardware(folders).accelerator("h100-sxm").memory == 72 * GIB
    assert load_hardware(folders[::-1]).accelerator("h100-sxm").memory == 64 * GIB
    assert load_hardware(folders).sha256 != load_hardware(folders[::-1]).sha256


def test_own_prices_take_precedence_in_the_reference_price(tmp_path: Path) -> None:
    text = '[[prices]]\nterm = "on-demand"\nusd_per_gpu_hour = [["rack", "h100-sxm", 8, 1.25]]\n'
    catalog = load(tmp_path, text)
    price = catalog.reference_price("H100")
    assert price is not None and price.usd_per_gpu_hour == 1.25
    assert len(catalog.prices) == len(load_hardware().prices) + 1


def test_own_fabric_and_node(tmp_path: Path) -> None:
    text = (
        MINIMAL + 'scale_up = { kind = "my-link", domain_size = 16 }\n'
        '[fabrics.my-link]\nkind = "scale-up"\nbandwidth_gbs = 700\nstep_latency_us = 2\n'
        "achieved_fraction = 0.8\n"
        '[nodes.my-box]\naccelerator = "my-gpu"\ngpus = 16\nnics = 8\nnic_gbit = 400\nfabric = "ib-ndr"\n'
    )
    catalog = load(tmp_path, text)
    link = catalog.accelerator("my-gpu").scale_up
    assert (link.bandwidth, link.latency, link.domain_size) == (700e9, 2e-6, 16)
    assert catalog.nodes["my-box"].network_bandwidth == 400e9


def entry(**changes: str) -> str:
    keys = {"memory_gib": "96", "memory_bandwidth_gbs": "4000", "bf16_tflops": "400"} | changes
    return "[accelerators.my-gpu]\n" + "".join(f"{key} = {value}\n" for key, value in keys.items() if value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (entry(memory_gb="96"), "memory_gb: unknown key"),
        (entry(memory_gib="-1"), "memory_gib: -1 must lie between"),
        (entry(memory_gib="nan"), "memory_gib: nan must lie between"),
        (entry(memory_bandwidth_gbs="inf"), "memory_bandwidth_gbs: inf must lie between"),
        (entry(memory_gib="98304000"), "memory_gib"),  # MiB written as GiB
        (entry(memory_gib='"96 GB"'), "is not a number"),
        (entry(memory_gib="true"), "is not a number"),
        (entry(memory_gib=""), "missing memory_gib"),
        (entry(memory_mib="98304"), "given twice"),
        (entry(bf16_tflops=""), "missing a dense compute rate"),
        (entry(bf16_tflops="0"), "bf16_tflops: 0 must lie between"),
        (entry(scale_up='{ kind = "warp" }'), "unknown fabric 'warp'"),
        (entry(scale_up='{ kind = "nvlink4", gbs_per_pair = 900 }'), "above gbs_per_gpu"),
        (entry(compute_units="1.5"), "not a whole number"),
        (entry(aliases='"H9000"'), "must be a list of texts"),
        (entry(aliases='["H100"]'), "ambiguous"),
        (entry(aliases='["--"]'), "no letter or digit"),
        ("[accelerators.MyGPU]\nmemory_gib = 1\n", "lower-case"),
        ("accelerators = 3\n", "must be a table"),
        ("[accelerators]\nmy-gpu = 3\n", "must be a table"),
        ("[accelerator.my-gpu]\nmemory_gib = 1\n", "accelerator: unknown key"),
        ("[accelerators.x\n", "not valid TOML"),
        ("a = " + "[" * 5000, "not valid TOML"),
        ("[prices]\nx = 1\n", "[[prices]]"),
        ('[[prices]]\nterm = "monthly"\nusd_per_gpu_hour = []\n', "term: must be one of"),
        ('[[prices]]\nterm = "spot"\ndate = "May"\nusd_per_gpu_hour = []\n', "is not a date"),
        ('[[prices]]\nterm = "spot"\nusd_per_gpu_hour = [["a", "h100-sxm", 8, -2.0]]\n', "must lie between"),
        ('[[prices]]\nterm = "spot"\nusd_per_gpu_hour = [["a", "h100-sxm", 8]]\n', "each row is"),
        (
            '[[prices]]\nterm = "spot"\nusd_per_gpu_hour = [["a", "warp", 8, 2.0]]\n',
            "'warp' is not in the catalog",
        ),
    ],
)
def test_a_bad_file_gives_one_line_naming_it(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(InputError) as caught:
        assert load(tmp_path, text).prices
    message = str(caught.value)
    assert says in message
    assert "\n" not in message and len(message) < 400
    assert "mine.toml" in message or "my-gpu" in message


def test_unreadable_files_and_missing_folders_give_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        load_hardware([tmp_path / "absent"])
    (tmp_path / "bad.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=r"bad\.toml: not UTF-8"):
        load_hardware([tmp_path])
    (tmp_path / "bad.toml").unlink()
    (tmp_path / "folder.toml").mkdir()
    with pytest.raises(InputError, match=r"folder\.toml: not a file"):
        load_hardware([tmp_path])


def test_two_files_of_a_folder_may_not_define_the_same_gpu(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text(MINIMAL)
    with pytest.raises(InputError, match=r"already defined in .*a\.toml"):
        load(tmp_path, MINIMAL, "b.toml")


def test_a_built_in_entry_without_a_source_is_refused(tmp_path: Path) -> None:
    """The strict rules of layer 0: what a user may leave out, the shipped catalog may not."""
    shutil.copytree(catalog_root("hardware_catalog"), tmp_path / "catalog")
    (tmp_path / "catalog" / "accelerators" / "extra.toml").write_text(MINIMAL)
    with pytest.raises(InputError, match=r"accelerators\.my-gpu: missing"):
        HardwareCatalog(read_built_in(tmp_path / "catalog"))


def test_nothing_depends_on_the_order_or_place_of_the_files(tmp_path: Path) -> None:
    built_in = catalog_root("hardware_catalog")
    shutil.copytree(built_in, tmp_path / "elsewhere")
    moved = HardwareCatalog(read_built_in(tmp_path / "elsewhere"))
    backwards = HardwareCatalog(read_built_in(built_in)[::-1])
    shipped = load_hardware()
    for other in (moved, backwards):
        assert other.sha256 == shipped.sha256
        assert dict(other.accelerators) == dict(shipped.accelerators)
        assert list(other.accelerators) == list(shipped.accelerators)
        assert other.prices == shipped.prices
        assert list(other.nodes.items()) == list(shipped.nodes.items())


def test_hash_changes_with_any_byte(tmp_path: Path) -> None:
    shutil.copytree(catalog_root("hardware_catalog"), tmp_path / "copy")
    before = catalog_hash(read_built_in(tmp_path / "copy"))
    with (tmp_path / "copy" / "prices.toml").open("a") as file:
        file.write("# a remark\n")
    assert catalog_hash(read_built_in(tmp_path / "copy")) != before


def test_loading_twice_is_free_but_notices_a_changed_file(tmp_path: Path) -> None:
    assert load_hardware() is load_hardware([])
    assert load(tmp_path, MINIMAL) is load_hardware([tmp_path])
    assert load(tmp_path, entry(memory_gib="48")).accelerator("my-gpu").memory == 48 * GIB


def test_driver_memory_is_below_nominal() -> None:
    """MiB as nvidia-smi prints them, not the 80 GB of the name."""
    assert load_hardware().accelerator("H100").memory == 81559 * MIB
