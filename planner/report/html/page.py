"""The page: sections in the order in which a reader asks."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

from planner.api import Catalogs, replica_of_pool
from planner.errors import PlannerError
from planner.plan import PlanFile
from planner.report.html import sections
from planner.report.html.style import SCRIPT, STYLE
from planner.report.plans import layout_text
from planner.report.single import time_by_operator
from planner.serving.layout import Layout
from planner.serving.lengths import Lengths

Times = list[tuple[str, Mapping[str, Mapping[str, float]]]]


def html_report(found: PlanFile, catalogs: Catalogs) -> str:
    """Return the whole file. What the catalogs do not know (prices, the model) is left out."""
    body = "".join(
        (
            sections.headline(found),
            sections.pareto(found),
            sections.ranked(found),
            sections.operators(_times(found, catalogs)),
            sections.memory(found),
            sections.costs(found, _prices(found, catalogs)),
            sections.simulated(found),
            sections.rejected(found),
            sections.provenance(found),
        )
    )
    title = escape(f"Plan for {found.job.get('model')}")
    policy = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        f'<meta name="color-scheme" content="light dark"><title>{title}</title><style>{STYLE}</style></head>\n'
        f'<body>{body}<div id="tip" role="tooltip"></div><script>{SCRIPT}</script></body></html>\n'
    )


def _prices(found: PlanFile, catalogs: Catalogs) -> dict[str, float]:
    prices = {}
    for pool in found.plans[0].pools:
        try:
            price = catalogs.hardware.reference_price(pool.gpu)
        except PlannerError:
            continue
        if price is not None:
            prices[pool.gpu] = price.usd_per_gpu_hour
    return prices


def _times(found: PlanFile, catalogs: Catalogs) -> Times:
    """Time by operator of each pool; a prefill pool runs prompts only, a decode pool steps only."""
    times: Times = []
    load = found.job.get("workload", {})
    for pool in found.plans[0].pools:
        x = pool.layout
        if pool.role in ("attention", "ffn"):
            continue  # one engine group does not explain them
        try:
            replica = replica_of_pool(str(found.job.get("model")), pool, catalogs)
            lengths = Lengths(float(load["isl"]), float(load["osl"]))
            split = Layout(x.tp, x.attention_dp, x.pp, x.ep, x.cp)
            tables = time_by_operator(replica, split, max(pool.running_batch, 1.0), lengths)
        except (PlannerError, KeyError, ValueError, TypeError):
            continue
        hidden = {"prefill": "decode_iteration_ms", "decode": "prefill_of_one_prompt_ms"}.get(pool.role)
        shown = {name: spent for name, spent in tables.items() if name != hidden}
        times.append((f"{pool.role} {layout_text(pool)} on {pool.gpu}", shown))
    return times
