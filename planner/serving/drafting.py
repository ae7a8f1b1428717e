"""What drafts tokens for a model: its own prediction layers, an EAGLE head, n-grams or a smaller model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

from planner.architecture.model import Attention, Checkpoint, DenseFfn, Layer, Model
from planner.errors import InputError
from planner.job.speculating import Method, Speculating
from planner.serving.replica import Replica
from planner.serving.speculation import LENGTHS, Acceptance, Speculation, default_acceptance

_HEAD_VOCABULARY = 32_000
"""Tokens that an EAGLE-3 head chooses among: the frequent ones (EAGLE-3, arXiv 2503.01840, and its checkpoints)."""
_HEAD_DIM = 128


@dataclass(frozen=True, slots=True)
class Drafting:
    """A wish to speculate with its names resolved: ``model`` is that of method ``draft``."""

    asked: Speculating
    model: Model | None = None
    folders: tuple[Path, ...] = ()

    def choices(self, target: Replica) -> Iterator[Speculation | None]:
        """Ways to decode that a search compares: without a draft (None), and drafts of several lengths; only the
        length that was asked for. Raises InputError where the model has no such draft."""
        asked = self.asked.tokens
        if not asked:
            yield None
        for length in LENGTHS if asked is None else (asked,) if asked else ():
            yield self.speculation(target, length)

    def replicas(self, target: Replica) -> Iterator[Replica]:
        """The target with each of its ``choices``."""
        for choice in self.choices(target):
            yield replace(target, speculation=choice)

    def speculation(self, target: Replica, length: int) -> Speculation:
        """The draft of ``length`` tokens per step for a replica."""
        method = method_of(self.asked, target.model)
        given = self.asked.acceptance
        acceptance = Acceptance(given) if given else default_acceptance(method, self.folders)
        match method:
            case "mtp":
                return Speculation(method, length, acceptance, _running(target, prediction_layer(target.model)), 2)
            case "eagle":
                head = _running(replace(target, weights="bf16"), eagle_head(target.model))
                return Speculation(method, length, acceptance, head, 4, 1, own_head=True)
            case "draft":
                assert self.model is not None
                draft, tables = _running(target, self.model), not self.model.tied_embeddings
                return Speculation(
                    method, length, acceptance, draft, own_embedding=True, own_head=tables, name=self.asked.model
                )
            case _:
                return Speculation(method, length, acceptance)


def method_of(asked: Speculating, model: Model) -> Method:
    """What ``auto`` means for a model: what works without training or finding anything."""
    if asked.method == "auto":
        return "mtp" if model.mtp_layers else "ngram"
    assert asked.method in get_args(Method)
    return asked.method


def prediction_layer(model: Model) -> Model:
    """The first multi-token-prediction layer as a model: engines run it again for every further token."""
    if not model.mtp_layers:
        raise InputError(
            f"--speculate mtp: {model.id} has no multi-token-prediction layers",
            hint="eagle, ngram and draft:MODEL need none",
        )
    return replace(model, layers=model.mtp_layers[:1], mtp_layers=(), positions=0)


def eagle_head(model: Model) -> Model:
    """A head as EAGLE-3 trains it (arXiv 2503.01840): one dense decoder layer of the target's width in bf16.

    It has the attention heads of the target where those are grouped ones, hidden/128 heads with 8 for the cache
    elsewhere, and its widest dense block, or 8/3 of the hidden width (the rule of Llama) where all blocks are routed.
    """
    mixer = next((layer.mixer for layer in model.layers if isinstance(layer.mixer, Attention)), None)
    heads = max(model.hidden // _HEAD_DIM, 1)
    plain = Attention(heads, min(8, heads), _HEAD_DIM, _HEAD_DIM)
    if mixer is not None and mixer.window != 0 and mixer.compressed is None:
        plain = Attention(mixer.heads, mixer.kv_heads, mixer.head_dim, mixer.value_dim)
    widths = [layer.ffn.width for layer in model.layers if isinstance(layer.ffn, DenseFfn)]
    width = max(widths, default=-(-model.hidden * 8 // 3 // 256) * 256)
    vocab = min(model.vocab, _HEAD_VOCABULARY)
    head = replace(model, id=f"{model.id} eagle head", layers=(Layer(plain, DenseFfn(width)),), vocab=vocab)
    return replace(head, mtp_layers=(), positions=0, tied_embeddings=False, checkpoint=Checkpoint())


def _running(target: Replica, model: Model) -> Replica:
    """The draft as a replica of the target's engine: it schedules nothing, so that its host work is small."""
    engine = replace(target.engine, step=target.engine.draft_step, sequence=0.0)
    return replace(target, model=model, engine=engine, speculation=None)
