"""Error bands of predictions by GPU family: what left-out measurements were, over what was predicted of them."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from planner.catalog.files import catalog_root

OTHER = "other"
"""Families that were never measured end to end: the widest band of any family that was."""


@lru_cache(maxsize=1)
def _bands() -> Mapping[str, Any]:
    path = catalog_root("validation") / "bands.toml"
    return tomllib.loads(path.read_text(encoding="utf-8"))


def band(family: str) -> Mapping[str, tuple[float, float]]:
    """Lowest and highest measured/predicted that hold 80 % of left-out points, by the name of a plan's band
    (``output_tok_s``, ``tpot_ms``, ``ttft_ms``); benchmarks/fit_engines.py writes them.
    """
    table = _bands().get(family) or _bands()[OTHER]
    return {name: (float(span[0]), float(span[1])) for name, span in table.items() if isinstance(span, list)}


SPLIT = "pd"


def plan_band(mode: str, families: Sequence[str]) -> Mapping[str, tuple[float, float]]:
    """Band of a plan: that of split deployments, or of one pool on GPUs of these families, the widest of theirs; of an
    attention-FFN split, which nobody measured here, the widest there is."""
    if mode == "pd":
        return band(SPLIT)
    spans = [band(family) for family in ((SPLIT, OTHER) if mode == "af" else families)]
    return {name: (min(s[name][0] for s in spans), max(s[name][1] for s in spans)) for name in spans[0]}


def band_families() -> tuple[str, ...]:
    """Families with a band of their own."""
    return tuple(name for name, table in _bands().items() if isinstance(table, dict) and name not in (OTHER, SPLIT))
