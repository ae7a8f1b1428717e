"""The catalog form of a model: TOML text from a Model, and the same Model back.

A file names each kind of mixer, feed-forward block and layer once and lists the order of layers as
``[times, "layer", ...]`` runs. Fields that have their default value are left out.
"""

from __future__ import annotations

import dataclasses
import json
import tomllib
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any, Final, TypeVar

from planner.architecture.model import (
    Attention,
    Checkpoint,
    CompressedContext,
    DenseFfn,
    Ffn,
    LatentAttention,
    Layer,
    Linear,
    LinearAttention,
    Mamba,
    Mixer,
    Model,
    MoeFfn,
    Part,
    Shard,
    SparseIndexer,
)
from planner.errors import InputError

T = TypeVar("T")
H = TypeVar("H", bound=Hashable)
Table = dict[str, Any]

_MIXERS: Final[Mapping[str, type[Mixer]]] = {
    "attention": Attention,
    "latent_attention": LatentAttention,
    "linear_attention": LinearAttention,
    "mamba": Mamba,
}
_FFNS: Final[Mapping[str, type[Ffn]]] = {"dense": DenseFfn, "moe": MoeFfn}
_LONGEST_PERIOD: Final = 24
_MOST_LAYERS: Final = 10_000


def distill(model: Model) -> str:
    """Write a model as TOML text; :func:`restore` of the text gives the model back."""
    every = (*model.layers, *model.mtp_layers)
    mixers = _name_all((layer.mixer for layer in every if layer.mixer), _mixer_name)
    ffns = _name_all((layer.ffn for layer in every if layer.ffn), _ffn_name)
    layers = _name_all(every, lambda layer: _layer_name(layer, mixers, ffns))
    top = _set_fields(model, without=("layers", "mtp_layers", "checkpoint"))
    top["order"] = _runs([layers[layer] for layer in model.layers])
    if model.mtp_layers:
        top["mtp_order"] = _runs([layers[layer] for layer in model.mtp_layers])
    sections: list[tuple[str, Table]] = [("", top)]
    if model.checkpoint != Checkpoint():
        sections.append(("checkpoint", _set_fields(model.checkpoint)))
    for kinds, named, title in ((_MIXERS, mixers, "mixer"), (_FFNS, ffns, "ffn")):
        for value, name in named.items():
            sections.append((f"{title}.{name}", {"kind": _kind(value, kinds), **_set_fields(value)}))
    for layer, name in layers.items():
        halves = {
            **({"mixer": mixers[layer.mixer]} if layer.mixer else {}),
            **({"ffn": ffns[layer.ffn]} if layer.ffn else {}),
        }
        sections.append((f"layer.{name}", {**halves, **_set_fields(layer, without=("mixer", "ffn"))}))
    return "\n".join(_section(title, table) for title, table in sections)


def restore(text: str, where: str = "model file") -> Model:
    """Read a model from its TOML text. Raises InputError naming the file and what is wrong."""
    try:
        return _model(tomllib.loads(text))
    except tomllib.TOMLDecodeError as problem:
        raise InputError(f"{where} is not valid TOML: {problem}", hint="compare with models_catalog") from None
    except (TypeError, ValueError, KeyError, AttributeError) as problem:
        raise InputError(f"{where} is no model file: {problem}", hint="compare with models_catalog") from None


def _model(table: Table) -> Model:
    mixers = {name: _mixer(entry) for name, entry in table.pop("mixer", {}).items()}
    ffns = {name: _build(_FFNS[entry.pop("kind")], entry) for name, entry in table.pop("ffn", {}).items()}
    layers = {name: _layer(entry, mixers, ffns) for name, entry in table.pop("layer").items()}
    checkpoint = table.pop("checkpoint", {})
    checkpoint["parts"] = tuple((Part(part), precision) for part, precision in checkpoint.get("parts", {}).items())
    table["checkpoint"] = _build(Checkpoint, checkpoint)
    table["layers"] = tuple(layers[name] for name in _expand(table.pop("order")))
    table["mtp_layers"] = tuple(layers[name] for name in _expand(table.pop("mtp_order", [])))
    table["aliases"] = tuple(table.get("aliases", ()))
    return _build(Model, table)


def _layer(entry: Table, mixers: Mapping[str, Mixer], ffns: Mapping[str, Ffn]) -> Layer:
    mixer, ffn = entry.pop("mixer", None), entry.pop("ffn", None)
    entry |= {"mixer": mixers[mixer] if mixer else None, "ffn": ffns[ffn] if ffn else None}
    return _build(Layer, entry)


def _mixer(entry: Table) -> Mixer:
    kind = _MIXERS[entry.pop("kind")]
    if "indexer" in entry:
        entry["indexer"] = _build(SparseIndexer, entry["indexer"])
    if "compressed" in entry:
        inner = entry["compressed"]
        inner["projections"] = tuple(_projection(row) for row in inner.get("projections", ()))
        entry["compressed"] = _build(CompressedContext, inner)
    if "projections" in entry:
        entry["projections"] = tuple(_projection(row) for row in entry["projections"])
    return _build(kind, entry)


def _projection(row: Table) -> Linear:
    row |= {"shard": Shard(row["shard"]), "part": Part(row["part"])}
    return _build(Linear, row)


def _build(kind: type[T], entry: Table) -> T:
    """Make a dataclass from a table; every size is a whole number of at least zero."""
    for name, value in entry.items():
        if isinstance(value, float) or (isinstance(value, int) and value < 0):
            raise ValueError(f"{name} is {value}, it must be a whole number of at least zero")
    return kind(**entry)


def _expand(runs: Sequence[Sequence[Any]]) -> list[str]:
    """Undo :func:`_runs`: each run is a number of times followed by the layers that repeat."""
    names: list[str] = []
    for times, *block in runs:
        if not isinstance(times, int) or times * len(block) + len(names) > _MOST_LAYERS:
            raise ValueError(f"order: {times} is no number of times")
        names += block * times
    return names


def _runs(names: Sequence[str]) -> list[list[Any]]:
    """Shorten a sequence to ``[times, name, ...]`` runs, at each place the period that reaches furthest."""
    runs: list[list[Any]] = []
    start = 0
    while start < len(names):
        period, times = max(
            ((period, _repeats(names, start, period)) for period in range(1, _LONGEST_PERIOD + 1)),
            key=lambda run: (run[0] * run[1] if run[1] > 1 else 1, -run[0]),
        )
        period = period if times > 1 else 1
        runs.append([times if times > 1 else 1, *names[start : start + period]])
        start += period * max(times, 1)
    return runs


def _repeats(names: Sequence[str], start: int, period: int) -> int:
    block = names[start : start + period]
    times = 1
    while len(block) == period and names[start + times * period : start + (times + 1) * period] == block:
        times += 1
    return times


def _name_all(values: Iterable[H], name: Callable[[H], str]) -> dict[H, str]:
    """Give each distinct value a name; values that would share one are numbered."""
    names: dict[H, str] = {}
    for value in values:
        if value not in names:
            base = name(value)
            same = sum(given == base or given.startswith(f"{base}_v") for given in names.values())
            names[value] = base if not same else f"{base}_v{same + 1}"
    return names


def _mixer_name(mixer: Mixer) -> str:
    match mixer:
        case Attention(window=None):
            return "attention"
        case Attention(window=0):
            return "cross_attention"
        case Attention(chunked=True):
            return "chunked_attention"
        case Attention():
            return "sliding_attention"
        case _:
            return _kind(mixer, _MIXERS)


def _ffn_name(ffn: Ffn) -> str:
    return _kind(ffn, _FFNS)


def _layer_name(layer: Layer, mixers: Mapping[Mixer, str], ffns: Mapping[Ffn, str]) -> str:
    halves = [mixers[layer.mixer]] if layer.mixer else []
    halves += [ffns[layer.ffn]] if layer.ffn else []
    return "_".join(halves) or "empty"


def _kind(value: object, kinds: Mapping[str, type[Any]]) -> str:
    return next(name for name, kind in kinds.items() if type(value) is kind)


def _set_fields(value: Any, without: Sequence[str] = ()) -> Table:
    """List the fields of a dataclass that differ from their default."""
    table: Table = {}
    for item in dataclasses.fields(value):
        given = getattr(value, item.name)
        if item.name not in without and given is not None and given != item.default:
            table[item.name] = dict(given) if item.name == "parts" else given
    return {name: given for name, given in table.items() if given not in ((), {})}


def _section(title: str, table: Table) -> str:
    lines = [f"[{title}]"] if title else []
    lines += [f"{name} = {_toml(value)}" for name, value in table.items()]
    return "\n".join(lines) + "\n"


def _toml(value: Any) -> str:
    if dataclasses.is_dataclass(value):
        return _toml(_set_fields(value))
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{name} = {_toml(given)}" for name, given in value.items()) + " }"
    if isinstance(value, list | tuple):
        if value and dataclasses.is_dataclass(value[0]):
            return "[\n" + "".join(f"  {_toml(given)},\n" for given in value) + "]"
        return "[" + ", ".join(_toml(given) for given in value) + "]"
    # strings, whole numbers and booleans are written as in JSON, except that TOML wants DEL escaped
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
