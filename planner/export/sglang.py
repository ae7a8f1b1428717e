"""Target sglang: a script per pool around ``sglang.launch_server``, and a router where prefill and decode run apart."""

from __future__ import annotations

from collections.abc import Mapping

from planner.export.commandline import words_of
from planner.export.commands import BOOTSTRAP_PORT, PORT, sglang_flags, sglang_nodes
from planner.export.deployment import Deployment, Group
from planner.export.flags import Flag, flag_table
from planner.export.readme import readme
from planner.export.scripts import script

ENGINES = ("sglang",)


def render(plan: Deployment) -> Mapping[str, str]:
    """Return the files of a plan by name."""
    files = {f"{group.name}.sh": _serve(plan, group) for group in plan.groups}
    steps = [
        f"1. Install SGLang {flag_table('sglang').version}, or start the scripts in its image.",
        "2. Start `POOL.sh` once per replica, with a `PORT` and `CUDA_VISIBLE_DEVICES` of its own where replicas share "
        "a node. A replica over several nodes: on each of them, with `HEAD` and `NODE_RANK`.",
    ]
    urls = "WORKERS='http://a:30000'"
    files["router.sh"] = router_script(plan.split)
    if plan.split:
        urls = "PREFILL='http://a:30000' DECODE='http://b:30000'"
        steps.append(
            "   Prefill replicas that share a node: start all but one as `./prefill.sh --disaggregation-bootstrap-port "
            "8999`, and tell the router so behind the URL: `http://a:30001@8999`."
        )
    steps.append(f"3. `{urls} ./router.sh` serves clients on port 8080.")
    return {**files, "README.md": readme(plan, "sglang", steps)}


def _serve(plan: Deployment, group: Group) -> str:
    flags = [*sglang_flags(plan, group), Flag("--host", "0.0.0.0"), Flag("--port", PORT)]
    nodes = sglang_nodes(group)
    words_of("sglang", [], [*flags, *nodes])
    extra = [word for flag in nodes for word in flag.words()]
    return script(
        plan, group, flag_table("sglang").command, words_of("sglang", [], flags), port=30000, head=extra, worker=extra
    )


def router_script(split: bool) -> str:
    """The router of SGLang, over URLs in the environment."""
    head = "#!/usr/bin/env bash\n# Spreads requests over the replicas; needs the package sglang-router.\n"
    if split:
        body = (
            ': "${PREFILL:?URLs of the prefill replicas}" "${DECODE:?URLs of the decode replicas}"\n'
            "args=(--pd-disaggregation)\n"
            "for url in $PREFILL; do\n"
            f'  case "$url" in *@*) port="${{url##*@}}" ;; *) port={BOOTSTRAP_PORT} ;; esac\n'
            '  args+=(--prefill "${url%@*}" "$port")\ndone\n'
            'for url in $DECODE; do args+=(--decode "$url"); done\n'
        )
    else:
        body = (
            ': "${WORKERS:?URLs of the replicas}"\nread -r -a urls <<< "$WORKERS"\nargs=(--worker-urls "${urls[@]}")\n'
        )
    end = 'exec python3 -m sglang_router.launch_router --host 0.0.0.0 --port "${PORT:-8080}" "${args[@]}" "$@"\n'
    return head + "set -euo pipefail\n" + body + end
