"""The examples of docs/how-to-add-a-gpu.md work as written."""

from __future__ import annotations

import re
from pathlib import Path

from planner.catalog import load_hardware

PAGE = Path(__file__).parents[2] / "docs" / "how-to-add-a-gpu.md"


def test_examples_load_and_mean_what_the_page_says(tmp_path: Path) -> None:
    examples = re.findall(r"```toml\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    (tmp_path / "page.toml").write_text("\n".join(examples), encoding="utf-8")
    catalog = load_hardware([tmp_path])
    assert catalog.accelerator("my-gpu").family == "generic"
    assert catalog.accelerator("Example 2").flops["fp8"] == 1980e12
    assert catalog.nodes["my-server"].network_bandwidth == 400e9
    assert catalog.fabrics["my-link"].achieved_fraction == 0.8
    price = catalog.reference_price("my-gpu", "reserved-1y")
    assert price is not None and price.usd_per_gpu_hour == 1.90
