"""The README.md of an export: what was planned, what to start how often, and what to know first."""

from __future__ import annotations

from collections.abc import Sequence

from planner.export.deployment import Deployment, Group
from planner.export.flags import flag_table
from planner.export.names import one_line


def readme(plan: Deployment, target: str, steps: Sequence[str], table: str | None = None) -> str:
    """Markdown with the pools, the steps that start them, notes and provenance."""
    pinned = flag_table(table or plan.engine)
    lines = [
        f"# {code(plan.served)} on {target}",
        "",
        f"Mode {plan.mode}; made for {pinned.engine} {pinned.version}. Other versions may name flags otherwise.",
        "",
        "| pool | role | replicas | GPUs of a replica | nodes | split | requests at once | share of requests |",
        "| --- | --- | ---: | --- | ---: | --- | ---: | ---: |",
        *(_row(group) for group in plan.groups),
        "",
        "## Start",
        "",
        *steps,
        "",
    ]
    notes = [*plan.notes, *_standing(plan)]
    lines += ["## Know first", "", *(f"- {plain(note)}" for note in notes), ""] if notes else []
    lines += ["## Provenance", "", *(f"- {key}: {code(value)}" for key, value in plan.annotations.items()), ""]
    return "\n".join(lines)


def code(text: str) -> str:
    """Inline code of any text: backticks, bars and line breaks cannot end it or the table around it."""
    return f"`{one_line(text).replace('`', chr(39)).replace('|', '/')}`"


def plain(text: str) -> str:
    """Running text of any kind: no markup, no end of a table cell."""
    return one_line(text).replace("&", "&amp;").replace("<", "&lt;").replace("|", "&#124;").replace("`", "'")


def _row(group: Group) -> str:
    named = (("tp", group.tp), ("attention_dp", group.attention_dp), ("pp", group.pp), ("ep", group.ep))
    split = " ".join(f"{name} {width}" for name, width in named if width > 1) or "none"
    return (
        f"| {group.name} | {group.role} | {group.replicas} | {group.gpus} x {plain(group.gpu_name)} | {group.nodes} "
        f"| {split} | {group.max_sequences * group.attention_dp} | {group.share:.1%} |"
    )


def _standing(plan: Deployment) -> list[str]:
    notes = [f"requests longer than {plan.max_model_len:,} tokens are refused; the plan's mean decides this limit"]
    if any(group.share < 1 for group in plan.groups):
        notes.append(
            "pools of one role take unequal shares of the requests, see the table: weight the load balancer so"
        )
    if plan.split:
        notes.append("prefill hands the cache to decode through NIXL: give the pods RDMA devices, or it falls to TCP")
    return notes
