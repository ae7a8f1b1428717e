"""Both halves of a model, and of what drafts for it: attention on one kind of worker, feed-forward blocks on another.

A prediction layer with experts is one more layer of the model, whose experts are as many as those of any other: its
halves go where the others' go. Every other draft runs whole on the attention workers, without a message: an EAGLE head,
a prediction layer without experts, a model of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from planner.architecture.model import Attention, LatentAttention, Layer, Model
from planner.cost.moe import EVEN
from planner.serving.legality import ShapeProblem
from planner.serving.replica import Replica
from planner.serving.speculation import Speculation


def split_problem(model: Model) -> ShapeProblem | None:
    """Why a model cannot be cut between attention and feed-forward blocks, or None.

    Every layer needs both halves, and mixers must be attention: recurrent state is updated by work as large as the
    blocks themselves, and engines keep hybrid layers whole.
    """
    for layer in model.layers:
        if layer.mixer is None or layer.ffn is None:
            missing = "attention" if layer.mixer is None else "feed-forward block"
            return ShapeProblem("no boundary between attention and FFN", "both halves in every layer", f"no {missing}")
        if not isinstance(layer.mixer, Attention | LatentAttention):
            return ShapeProblem(
                "hybrid state cannot be split", "attention in every layer", type(layer.mixer).__name__.lower()
            )
    return None


def draft_with_blocks(speculation: Speculation | None) -> Replica | None:
    """What drafts, where its feed-forward half is on the feed-forward workers; None where they do not draft."""
    draft = None if speculation is None else speculation.draft
    assert speculation is None or draft is None or draft.speculation is None
    routed = draft is not None and draft.has_experts and split_problem(draft.model) is None
    return draft if routed and speculation is not None and speculation.method == "mtp" else None


def attention_half(replica: Replica) -> Replica:
    """Embedding, attention of every layer, head; and of a draft what attention workers hold."""
    layers = each_layer(replica.model, lambda layer: Layer(layer.mixer, None))
    half = replace(replica, model=replace(replica.model, layers=layers))
    draft = draft_with_blocks(replica.speculation)
    if draft is None or replica.speculation is None:
        return half
    return replace(half, speculation=replace(replica.speculation, draft=attention_half(draft)))


def ffn_half(replica: Replica) -> Replica:
    """Feed-forward blocks and experts of every layer and of a draft that has them here, nothing else."""
    layers = each_layer(replica.model, lambda layer: Layer(None, layer.ffn))
    # FFN pools replicate popular experts and place them by load: only the draw of tokens keeps their ranks uneven. A
    # measured imbalance goes before that, see FfnWorkers.
    engine = replace(replica.engine, evenness=EVEN, redundant_experts=0, expert_imbalance=0.0)
    model = replace(replica.model, layers=layers, vocab=0, positions=0)
    draft, how = draft_with_blocks(replica.speculation), None
    if draft is not None and replica.speculation is not None:
        how = replace(replica.speculation, draft=ffn_half(draft), joined=0, rejoined=None)
    return replace(replica, engine=engine, model=model, speculation=how)


def each_layer(model: Model, change: Callable[[Layer], Layer]) -> tuple[Layer, ...]:
    """Every layer changed; layers that were one object are one again, which keeps counting them cheap."""
    distinct = {id(layer): layer for layer in model.layers}
    changed = {key: change(layer) for key, layer in distinct.items()}
    return tuple(changed[id(layer)] for layer in model.layers)
