"""Counts of parameters: in total, active per token, and by the part of the model that quantisation treats
alike."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from planner.architecture.linears import expert_linears, ffn_linears, mixer_linears
from planner.architecture.model import Layer, Linear, Model, MoeFfn, Part


def total_parameters(model: Model) -> int:
    """Count all parameters of the language model: weights, biases, norms; without MTP layers and vision
    towers."""
    return sum(parameters_by_part(model).values()) + small_parameters(model)


def active_parameters(model: Model) -> int:
    """Count the parameters that one token uses: routed experts count ``top_k`` times, the embedding table in
    full.

    Learned position embeddings are left out: a token reads one row, and none in the head.
    """
    idle = sum(_idle_expert_parameters(layer, model.hidden) for layer in model.layers)
    return total_parameters(model) - idle - model.positions * model.hidden


def parameters_by_part(model: Model) -> Mapping[Part, int]:
    """Count weights and biases of matrices by part; every part is present. Norms: see
    :func:`small_parameters`.

    Tied embeddings are held once and counted under the embedding.
    """
    counts = Counter(dict.fromkeys(Part, 0))
    for group in model.groups:
        for part, parameters in layer_parameters(group.layer, model.hidden).items():
            counts[part] += group.count * parameters
    counts[Part.EMBEDDING] += (model.vocab + model.positions) * model.hidden
    counts[Part.HEAD] += 0 if model.tied_embeddings else model.vocab * model.hidden
    return dict(counts)


def small_parameters(model: Model) -> int:
    """Count norms, sinks, convolutions, decay vectors, head bias: what is no weight matrix and is never
    quantised."""
    return model.extra_parameters + sum(group.count * _small(group.layer) for group in model.groups)


def mtp_parameters(model: Model) -> int:
    """Count the multi-token-prediction layers with their projections, without their share of embedding and
    head."""
    layers = sum(sum(layer_parameters(layer, model.hidden).values()) + _small(layer) for layer in model.mtp_layers)
    return layers + model.mtp_extra_parameters


def layer_parameters(layer: Layer, hidden: int) -> Mapping[Part, int]:
    """Count weights and biases of one layer by part, all routed experts included."""
    counts: Counter[Part] = Counter()
    _add(counts, mixer_linears(layer.mixer, hidden))
    _add(counts, ffn_linears(layer.ffn, hidden))
    if isinstance(layer.ffn, MoeFfn):
        _add(counts, expert_linears(layer.ffn, hidden), layer.ffn.experts)
    return dict(counts)


def _small(layer: Layer) -> int:
    return layer.small_parameters + (layer.mixer.small_parameters if layer.mixer else 0)


def _add(counts: Counter[Part], linears: Iterable[Linear], times: int = 1) -> None:
    for linear in linears:
        counts[linear.part] += times * linear.parameters


def _idle_expert_parameters(layer: Layer, hidden: int) -> int:
    if not isinstance(layer.ffn, MoeFfn):
        return 0
    one = sum(linear.parameters for linear in expert_linears(layer.ffn, hidden))
    return (layer.ffn.experts - min(layer.ffn.top_k, layer.ffn.experts)) * one
