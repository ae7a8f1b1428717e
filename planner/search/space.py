"""The layouts worth looking at: every split that the model's shape and the fleet's links allow."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product

from planner.architecture.model import Model, MoeFfn
from planner.catalog.hardware import Accelerator
from planner.job.job import Job
from planner.search.reject import Rejected, Rejections
from planner.serving.layout import Layout
from planner.serving.legality import shape_problem
from planner.serving.replica import Replica

_PIPELINES = (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 16)
_DATA_WIDTHS = (1, 2, 4, 8, 16, 32, 64)
_CONTEXTS = (1, 2, 4, 8)
LONG_PROMPT = 32_768
"""New prompt tokens from which contexts are cut without being asked to."""


def layouts(
    model: Model,
    accelerator: Accelerator,
    gpus: int,
    rejections: Rejections,
    most: int | None = None,
    contexts: Sequence[int] = (1,),
) -> list[Layout]:
    """All layouts of one replica on at most ``gpus`` GPUs (and at most ``most``), in a fixed order.

    tp stays inside a scale-up domain, because an all-reduce per half layer over the network never pays.
    Attention data
    parallelism and expert parallelism are for models with experts. What the shape forbids is counted in
    ``rejections``. ``contexts`` are the context-parallel widths to combine with them; those above 1 only without
    attention data parallelism, which cuts tokens without cutting requests and so needs no exchange of keys.
    """
    found = []
    for layout in _splits(model, accelerator, min(gpus, most or gpus), contexts):
        problem = shape_problem(model, layout)
        if problem is None:
            found.append(layout)
        else:
            name = f"{accelerator.id} {layout}"
            rejections.add(Rejected(problem.reason, name, problem.need, problem.have, float(layout.gpus)))
    return found


def one_stage(found: list[Layout], replica: Replica, rejections: Rejections) -> list[Layout]:
    """The layouts that can speculate: a draft waits for the token of its target, which a pipeline of stages has not
    finished while the next micro-batch runs, and engines refuse the two together."""
    staged = [layout for layout in found if layout.pp > 1]
    for layout in staged:
        name = f"{replica.accelerator.id} {layout} {replica.weights} {replica.speculation}"
        rejections.add(Rejected("drafts need one pipeline stage", name, "pp 1", f"pp {layout.pp}", float(layout.pp)))
    return [layout for layout in found if layout.pp == 1]


def context_widths(job: Job) -> tuple[int, ...]:
    """Context-parallel widths that a search looks at: those asked for; else 1 for short prompts, and up to 8 from
    ``LONG_PROMPT`` new tokens on, where attention and the cache of one request weigh as much as the weights."""
    if job.cp:
        return job.cp
    return _CONTEXTS if job.workload.new_tokens >= LONG_PROMPT else (1,)


def _splits(model: Model, accelerator: Accelerator, limit: int, contexts: Sequence[int]) -> Iterator[Layout]:
    routed = any(isinstance(group.layer.ffn, MoeFfn) for group in model.groups)
    for tp in range(1, min(limit, accelerator.scale_up.domain_size, 64) + 1):
        for data, cp in product(_DATA_WIDTHS if routed else (1,), contexts):
            if cp > 1 and data > 1:
                continue
            for pp in _PIPELINES:
                if tp * data * pp * cp <= limit:
                    for ep in sorted({1, tp * data * cp}) if routed else (1,):
                        yield Layout(tp, data, pp, ep, cp)
