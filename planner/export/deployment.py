"""What every target needs of a plan: groups of equal replicas on nodes, the model to load, and where it all comes from.

This is the only module of the room that reads plans and catalogs; targets turn a ``Deployment`` into text.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from planner.api import Catalogs
from planner.architecture.model import Model, MoeFfn
from planner.catalog.hardware import Accelerator
from planner.cost.collective import Topology
from planner.errors import ExportError, InputError, PlannerError
from planner.export.flags import flag_table
from planner.export.names import dns_name, model_name, one_line
from planner.export.selectors import Selector, selector
from planner.job.tuning import Tuning
from planner.plan import Plan, PlanFile, Pool, PoolSpeculation, sha256, to_json
from planner.serving.engine import Engine, load_engine
from planner.serving.layout import Layout
from planner.units import GIB

ANNOTATION = "llm-capacity-planner"
_CACHE_SHARE = 0.15
_LENGTH_STEP = 1024
_FETCHING = ("llm-d", "kserve")  # targets that fetch a model by URI before an engine starts
_ONLINE = ("fp8",)  # engines quantise a bf16 checkpoint to these while they load it


@dataclass(frozen=True, slots=True)
class Group:
    """Equal replicas in one role on one GPU type.

    Attributes
    ----------
    name : DNS-safe, different for every group of a deployment.
    tp, attention_dp, pp, cp, ep : the split of a replica in the plan's terms (docs/architecture.md, contract 4).
    nodes, gpus_per_node : how a replica lies on nodes.
    memory_share : share of the GPU's memory that the engine may take.
    static_share : share for weights and cache alone.
    free_share : share for the cache of what weights leave.
    max_sequences : requests that one attention rank runs at once.
    chunk_tokens : tokens of one iteration.
    receive_interval : iterations between two looks of the scheduler at its queue that the plan counts on.
    dispatches : whether ranks that send to experts of others do so token by token, instead of gathering all on each.
    share : part of the requests of its role that the plan sends here.
    online : precision to which the engine quantises the checkpoint while loading, or None.
    tuning : overlap of messages and balance of experts that the plan counts on, or None.
    speculation : how it drafts tokens, or None; ``draft`` what engines load as the draft.
    """

    name: str
    role: str
    gpu: str
    gpu_name: str
    replicas: int
    tp: int
    attention_dp: int
    pp: int
    cp: int
    ep: int
    nodes: int
    gpus_per_node: int
    kv: str
    memory_share: float
    static_share: float
    free_share: float
    max_sequences: int
    chunk_tokens: int
    share: float
    online: str | None
    selector: Selector
    speculation: PoolSpeculation | None = None
    draft: str | None = None
    tuning: Tuning | None = None
    receive_interval: int = 1
    dispatches: bool = False

    def image(self, engine: str) -> str:
        """Container image of an engine or wrapper for this group's GPU. Raises ExportError where none is known."""
        return self.selector.image(engine, flag_table(engine).images)

    @property
    def gpus(self) -> int:
        """GPUs of one replica."""
        return self.nodes * self.gpus_per_node

    @property
    def sends_to_experts(self) -> bool:
        """Whether ranks send their tokens to experts that lie over all of them."""
        return Layout(self.tp, self.attention_dp, self.pp, self.ep, self.cp).sends_to_experts

    @property
    def split(self) -> bool:
        """Whether prefill and decode run apart."""
        return self.role != "aggregated"


@dataclass(frozen=True, slots=True)
class Deployment:
    """A plan as targets see it. ``model`` is what engines load, ``served`` the name that clients send."""

    name: str
    model: str
    served: str
    engine: str
    mode: str
    moe: bool
    max_model_len: int
    groups: tuple[Group, ...]
    annotations: Mapping[str, str]
    notes: tuple[str, ...]

    def of_role(self, *roles: str) -> tuple[Group, ...]:
        """Return the groups of some roles, in order."""
        return tuple(group for group in self.groups if group.role in roles)

    @property
    def split(self) -> bool:
        """Whether prefill and decode run apart."""
        return any(group.split for group in self.groups)


def deployment(
    found: PlanFile,
    rank: int,
    target: str,
    engines: tuple[str, ...],
    catalogs: Catalogs,
    model: str | None = None,
    draft: str | None = None,
) -> Deployment:
    """Read a plan for a target that runs ``engines``; the first one stands in for an engine it does not run.

    Parameters
    ----------
    model : id or path that engines load, when it is another than the plan's (a quantised checkpoint).
    draft : id or path of the draft or EAGLE head, when the plan names none.

    Raises ExportError for a plan that no engine can run as it stands, InputError for names that catalogs lack.
    """
    plan = found.plan(rank)
    refuse_roles(plan, target)
    planned = plan.pools[0].engine
    if len({pool.engine for pool in plan.pools}) > 1:
        raise ExportError(f"plan {plan.rank} runs several engines, which no target serves behind one name")
    engine = planned if planned in engines else engines[0]
    profile, known = load_engine(engine, catalogs.folders), _known(str(found.job.get("model", "")), catalogs)
    groups = tuple(
        replace(_group(pool, profile, known, model is None, catalogs), share=share, draft=_draft(pool, draft, catalogs))
        for pool, share in zip(plan.pools, _shares(plan), strict=True)
    )
    source = model or _source(str(found.job.get("model", "")), known)
    if source.startswith(("hf://", "pvc://")) and target not in _FETCHING:
        raise InputError(
            f"model {source!r}: {target} starts engines, which load hub ids and paths",
            hint="--model ORG/NAME or --model /path/in/the/container",
        )
    if not _loadable(source):
        raise InputError(f"model {source!r}: no engine can load that name", hint="name another with --model")
    served = str(found.job.get("model") or source)
    served = served if _loadable(served) else source
    notes = [] if engine == planned else [f"planned for {planned}; {target} runs {engine}, whose timing may differ"]
    notes += _checkpoint_notes(plan, known, model) + _tuning_notes(plan)
    notes += [
        f"no node label is known for {group.gpu}: label its nodes {key}={value}"
        for group in groups if not group.selector.known for key, value in group.selector.labels.items()
    ]  # fmt: skip
    return Deployment(
        name=model_name(served), model=source, served=served, engine=engine, mode=plan.mode,
        moe=known is None or any(isinstance(group.layer.ffn, MoeFfn) for group in known.groups),
        max_model_len=_longest(found, plan, known), groups=_named(groups), annotations=provenance(found, plan),
        notes=tuple(dict.fromkeys(notes)),
    )  # fmt: skip


def _draft(pool: Pool, named: str | None, catalogs: Catalogs) -> str | None:
    """The checkpoint of a draft, as the user names it or as the plan does. Raises InputError for an unusable name."""
    how = pool.speculation
    if how is None:
        return None
    name = named or (None if how.draft is None else _source(how.draft, _known(how.draft, catalogs)))
    if name is not None and not _loadable(name):
        raise InputError(f"draft model {name!r}: no engine can load that name", hint="name another with --draft-model")
    return name


def _loadable(name: str) -> bool:
    """Whether a name can stand on a command line: not empty, no option, no byte that a system call cannot carry."""
    return bool(name.strip()) and not name.startswith("-") and not re.search("[\0\ud800-\udfff]", name)


def refuse_roles(plan: Plan, target: str) -> None:
    """Raise ExportError for roles that no serving engine of today takes on, and pipelines over unlike GPUs."""
    unlike = [pool.gpu for pool in plan.pools if pool.stages]
    if unlike:
        raise ExportError(
            f"{target}: plan {plan.rank} has pipeline stages on {' and '.join(unlike[0].split('+'))}; no file is "
            "written for stages on unlike GPUs yet",
            hint="the stages and their layers are in the plan: pools[].stages",
        )
    strange = sorted({pool.role for pool in plan.pools} - {"aggregated", "prefill", "decode"})
    if strange:
        raise ExportError(
            f"{target} cannot express plan {plan.rank}: no engine it runs serves {' and '.join(strange)} apart (mode "
            f"{plan.mode})",
            hint="export a plan of mode aggregated or pd: --plan N, or search again with --modes aggregated,pd",
        )
    roles = {pool.role for pool in plan.pools}
    if roles in ({"prefill"}, {"decode"}) or len(roles) == 3:
        raise ExportError(f"plan {plan.rank} mixes roles that do not serve together: {', '.join(sorted(roles))}")


def provenance(found: PlanFile, plan: Plan) -> dict[str, str]:
    """Where a plan comes from, as annotations of what is made from it; the same plan gives the same ones."""
    made = found.provenance
    timeless = found.reproducible().model_copy(update={"provenance": made.model_copy(update={"created": ""})})
    digest = sha256(to_json(timeless))
    percentile = str(found.job.get("slo", {}).get("percentile", "p95"))
    tpot = getattr(plan.predicted.tpot_ms, percentile, None) or plan.predicted.tpot_ms.p95
    ttft = getattr(plan.predicted.ttft_ms, percentile, None) or plan.predicted.ttft_ms.p95
    values = {
        "version": made.planner_version, "plan": str(plan.rank), "mode": plan.mode, "plan-sha256": digest,
        "catalog-sha256": made.catalog_sha256, "model-sha256": made.model_sha256, "seed": str(made.seed),
        "basis": plan.basis, "predicted": f"{plan.predicted.output_tok_s:g} output tok/s, TTFT {ttft:g} ms and TPOT "
        f"{tpot:g} ms at {percentile}",
    }  # fmt: skip
    return {f"{ANNOTATION}/{key}": one_line(value) for key, value in values.items()}


def nodes_of(gpus: int, per_node: int, group: int) -> int:
    """Fewest equal nodes for a replica; nodes that hold whole tensor-parallel ``group``s go before fewer nodes."""
    fits = [n for n in range(1, gpus + 1) if gpus % n == 0 and gpus // n <= per_node]
    whole = [n for n in fits if (gpus // n) % group == 0 or group % (gpus // n) == 0]
    return (whole or fits)[0]


def _group(pool: Pool, engine: Engine, known: Model | None, own: bool, catalogs: Catalogs) -> Group:
    split, memory = pool.layout, pool.memory
    gpu = catalogs.hardware.accelerator(pool.gpu)
    engine = engine.on(gpu.vendor)
    engine = engine.prefilling if pool.role == "prefill" else engine
    gpus = split.tp * split.attention_dp * split.cp * split.pp
    nodes = nodes_of(gpus, gpu.gpus_per_node, split.tp * split.cp)
    weights = memory.weights_gib / memory.capacity_gib if memory.capacity_gib > 0 else 0.0
    share = engine.utilization
    if not engine.of_free:
        share = min(max(share, weights + _CACHE_SHARE), engine.utilization_ceiling)
    working = (memory.activations_gib + engine.reserve / GIB) / memory.capacity_gib if memory.capacity_gib > 0 else 0.0
    sequences = max(1, min(pool.max_batch, int(engine.max_sequences)))
    return Group(
        name="", role=pool.role, gpu=pool.gpu, gpu_name=gpu.name, replicas=pool.replicas,
        tp=split.tp, attention_dp=split.attention_dp, pp=split.pp, cp=split.cp, ep=split.ep,
        nodes=nodes, gpus_per_node=gpus // nodes, kv=pool.kv, memory_share=round(share, 3),
        static_share=round(min(max(share - working, weights, 0.1), 0.98), 3), free_share=round(engine.utilization, 3),
        max_sequences=sequences, chunk_tokens=max(int(engine.chunk_tokens), sequences), share=1.0,
        online=_online(pool.weights, known) if own else None, selector=selector(gpu, catalogs.folders),
        speculation=pool.speculation, tuning=pool.tuning,
        receive_interval=int(engine.receive_interval) if pool.role == "aggregated" else 1,
        dispatches=_dispatches(engine, known, gpu),
    )  # fmt: skip


def _dispatches(engine: Engine, known: Model | None, gpu: Accelerator) -> bool:
    """Libraries that send tokens to experts do so over scale-up links; on PCIe nodes engines gather."""
    moe = known is not None and any(isinstance(group.layer.ffn, MoeFfn) for group in known.groups)
    return moe and engine.expert_exchange == "dispatch" and not Topology.of(gpu).shared_host


def _named(groups: tuple[Group, ...]) -> tuple[Group, ...]:
    """Name groups by role, and by GPU and number where a role has several."""
    roles, used = Counter(group.role for group in groups), Counter[str]()
    named = []
    for group in groups:
        role = "worker" if group.role == "aggregated" else group.role
        name = role if roles[group.role] == 1 else f"{role}-{dns_name(group.gpu, 20)}"
        used[name] += 1
        named.append(replace(group, name=name if used[name] == 1 else f"{name}-{used[name]}"))
    return tuple(named)


def _shares(plan: Plan) -> list[float]:
    """Part of its role's requests that each pool takes: as planned, else by what its replicas run at once."""
    loads = [
        pool.replicas * pool.layout.attention_dp * max(pool.running_batch, 1e-9)
        if pool.request_rate is None
        else pool.request_rate
        for pool in plan.pools
    ]
    totals: dict[str, float] = {}
    for pool, load in zip(plan.pools, loads, strict=True):
        totals[pool.role] = totals.get(pool.role, 0.0) + load
    return [load / totals[p.role] if totals[p.role] > 0 else 1.0 for p, load in zip(plan.pools, loads, strict=True)]


def _known(name: str, catalogs: Catalogs) -> Model | None:
    try:
        return catalogs.model(name)
    except (PlannerError, OSError, ValueError):
        return None


def _source(name: str, known: Model | None) -> str:
    """What engines load: a Hugging Face id as the user wrote it, the catalog's id for a short name, a folder."""
    path = Path(name)
    try:
        if path.suffix == ".json" and path.is_file():
            return str(path.parent.resolve())
        if name and (path / "config.json").is_file():
            return str(path.resolve())
    except (OSError, ValueError):
        pass
    return name if known is None or "/" in name else known.id


def _online(weights: str, known: Model | None) -> str | None:
    stored = known.checkpoint.weights if known else "bf16"
    return weights if weights in _ONLINE and stored in ("bf16", "fp16") else None


def _checkpoint_notes(plan: Plan, known: Model | None, model: str | None) -> list[str]:
    stored = known.checkpoint.weights if known else "bf16"
    wanted = {pool.weights for pool in plan.pools} - {stored, "bf16", "fp16", "checkpoint", *_ONLINE}
    if model is not None or not wanted:
        return []
    return [f"weights in {', '.join(sorted(wanted))}: engines need a checkpoint stored so; name it with --model"]


def _tuning_notes(plan: Plan) -> list[str]:
    """What a plan counts on that no flag switches on."""
    tuned = [pool.tuning for pool in plan.pools if pool.tuning is not None]
    notes = [
        f"the plan counts on kernels that hide {t.communication_overlap:.0%} of tensor-parallel communication; no flag "
        "asks for that" for t in tuned if t.communication_overlap
    ]  # fmt: skip
    ways = dict.fromkeys(_travel(t) for t in tuned)
    notes += [f"the plan counts on caches that travel {way}; set that up in the connector" for way in ways if way]
    return notes + [
        f"the plan counts on a busiest expert rank of {t.expert_imbalance:g} times the mean"
        for t in tuned if t.expert_imbalance
    ]  # fmt: skip


def _travel(tuning: Tuning) -> str:
    """How caches go from prefill to decode workers, where a plan departs from the engine; empty where not."""
    pieces = "" if tuning.kv_transfer is None else f"by {tuning.kv_transfer}"
    smaller = "" if tuning.kv_compression is None else f"in 1/{tuning.kv_compression:g} of their bytes"
    return ", ".join(part for part in (pieces, smaller) if part)


def _longest(found: PlanFile, plan: Plan, known: Model | None) -> int:
    """Tokens of the longest request to admit: twice the mean, but no more than the model or one cache can hold.

    An engine refuses to start when its cache cannot hold one request of this length.
    """
    load = found.job.get("workload", {})
    mean = max(int(float(load.get("isl", 0)) + float(load.get("osl", 0))), 1)
    slots = min(pool.max_batch for pool in plan.pools)
    wanted = -(-2 * mean // _LENGTH_STEP) * _LENGTH_STEP
    bounded = max(mean, min(wanted, mean * max(slots, 1)))
    return min(bounded, known.max_context) if known is not None and known.max_context else bounded
