"""Start scripts: one bash file per pool, the same on every node of a replica."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from planner.export.commandline import Word, shell_word
from planner.export.deployment import Deployment, Group
from planner.export.yaml_file import header


def script(
    plan: Deployment,
    group: Group,
    command: Sequence[str],
    words: Sequence[Word],
    *,
    port: int,
    head: Sequence[Word] = (),
    worker: Sequence[Word] = (),
    start: int | None = None,
    environment: Mapping[str, str] | None = None,
    launcher: Sequence[str] = (),
) -> str:
    """Write a script that starts one replica of a pool, or one node of it.

    Parameters
    ----------
    words : arguments of every node; ``head`` and ``worker`` follow on the first node and on the others.
    start : data-parallel ranks of a node; defines START on the other nodes.
    environment : exported variables; values are shell text.
    """
    title = f"Pool {group.name}: {group.replicas} replicas of {group.gpus} x {group.gpu_name}; start once per replica"
    lines = ["#!/usr/bin/env bash", *(f"# {line}" for line in header(plan, title)), "set -euo pipefail", ""]
    lines += ['HERE="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"', f'PORT="${{PORT:-{port}}}"']
    if head or worker:
        lines += [
            ': "${HEAD:?set HEAD to the address of the first node of this replica}"',
            f': "${{NODE_RANK:?set NODE_RANK to 0 on the first of {group.nodes} nodes, 1 on the next ...}}"',
        ]
    if start is not None:
        lines.append(f'START="$((NODE_RANK * {start}))"')
    lines += [f"export {name}={value}" for name, value in (environment or {}).items()]
    lines += ["", "args=(", *_listed(words), ")"]
    if list(head) != list(worker):
        lines += ['if [ "$NODE_RANK" = 0 ]; then', "  args+=(", *_listed(head, "    "), "  )", "else"]
        lines += ["  args+=(", *_listed(worker, "    "), "  )", "fi"]
    elif head:
        lines += ["args+=(", *_listed(head), ")"]
    lines += ["", f'exec {" ".join([*launcher, *command])} "${{args[@]}}" "$@"', ""]
    return "\n".join(lines)


def _listed(words: Sequence[Word], indent: str = "  ") -> list[str]:
    """One flag with its value on each line."""
    lines: list[str] = []
    for word in words:
        text = shell_word(word)
        if lines and not text.startswith("--") and lines[-1].lstrip().startswith("--") and " " not in lines[-1].strip():
            lines[-1] += f" {text}"
        else:
            lines.append(indent + text)
    return lines
