"""Which layouts the shape of a model allows."""

from __future__ import annotations

from dataclasses import dataclass

from planner.architecture.model import (
    Attention,
    DenseFfn,
    LatentAttention,
    LinearAttention,
    Mamba,
    Mixer,
    Model,
    MoeFfn,
)
from planner.serving.layout import Layout


@dataclass(frozen=True, slots=True)
class ShapeProblem:
    """What does not divide: ``need`` by the layout, ``have`` in the model."""

    reason: str
    need: str
    have: str

    def __str__(self) -> str:
        return f"{self.reason}: needs {self.need}, the model has {self.have}"


def shape_problem(model: Model, layout: Layout) -> ShapeProblem | None:
    """Why the model cannot be split so, or None. Engines cut heads, widths, experts and layers only evenly or
    whole.
    """
    if layout.pp > len(model.layers):
        return ShapeProblem("more pipeline stages than layers", f"{layout.pp} layers", f"{len(model.layers)}")
    ranks = layout.tp * layout.attention_dp * layout.cp
    routed = any(isinstance(group.layer.ffn, MoeFfn) for group in model.groups)
    if layout.ep > 1 and not routed:
        return ShapeProblem("no experts to spread", f"experts for ep {layout.ep}", "none")
    if ranks % layout.ep:
        return ShapeProblem(
            "experts do not spread evenly", f"tp*attention_dp*cp divisible by ep {layout.ep}", f"{ranks} ranks"
        )
    for group in model.groups if layout.cp > 1 else ():
        if isinstance(group.layer.mixer, LinearAttention | Mamba):
            return ShapeProblem(
                "recurrent layers cannot cut contexts", f"attention in every layer for cp {layout.cp}",
                "state that passes from token to token",
            )  # fmt: skip
    for group in model.groups:
        problem = _mixer_problem(group.layer.mixer, layout.tp) or _ffn_problem(
            group.layer.ffn, layout, ranks // layout.ep
        )
        if problem is not None:
            return problem
    return None


def _mixer_problem(mixer: Mixer | None, tp: int) -> ShapeProblem | None:
    """Heads divide by tp; KV heads divide too, or are copied evenly."""
    match mixer:
        case Attention():
            even = mixer.heads % tp == 0 and (mixer.kv_heads % tp == 0 or tp % mixer.kv_heads == 0)
            have = f"{mixer.heads} heads and {mixer.kv_heads} KV heads"
        case LatentAttention():
            even, have = mixer.heads % tp == 0, f"{mixer.heads} heads"
        case LinearAttention():
            even, have = mixer.value_heads % tp == 0, f"{mixer.value_heads} value heads"
        case Mamba():
            even, have = mixer.heads % tp == 0, f"{mixer.heads} state heads"
        case None:
            return None
    return None if even else ShapeProblem("attention heads do not divide by tp", f"heads divisible by {tp}", have)


def _ffn_problem(ffn: DenseFfn | MoeFfn | None, layout: Layout, sharing: int) -> ShapeProblem | None:
    match ffn:
        case MoeFfn() if ffn.experts % layout.ep:
            return ShapeProblem("experts do not divide by ep", f"experts divisible by {layout.ep}", f"{ffn.experts}")
        case MoeFfn() if ffn.width % sharing:
            return ShapeProblem(
                "expert width does not divide",
                f"a width divisible by tp*attention_dp*cp/ep = {sharing}",
                f"{ffn.width}",
            )
        case DenseFfn() if ffn.width % layout.tp:
            return ShapeProblem(
                "feed-forward width does not divide by tp",
                f"a width divisible by {layout.tp}",
                f"{ffn.width}",
            )
    return None
