"""The weight matrices of a layer: the one list that parameters, bytes, FLOPs and messages follow from."""

from __future__ import annotations

from planner.architecture.model import (
    Attention,
    DenseFfn,
    Ffn,
    LatentAttention,
    Linear,
    Mixer,
    MoeFfn,
    Part,
    Shard,
    SparseIndexer,
)

_ATTENTION = Part.ATTENTION


def mixer_linears(mixer: Mixer | None, hidden: int) -> tuple[Linear, ...]:
    """List the weight matrices of a token mixer in a model of width ``hidden``. No mixer has none."""
    match mixer:
        case None:
            return ()
        case Attention():
            return _attention_linears(mixer, hidden)
        case LatentAttention():
            return _latent_linears(mixer, hidden)
        case _:
            return mixer.projections


def ffn_linears(ffn: Ffn | None, hidden: int) -> tuple[Linear, ...]:
    """List the weight matrices that every token uses: dense block, shared experts, router, latent
    projections.

    Routed experts are apart, see :func:`expert_linears`.
    """
    match ffn:
        case None:
            return ()
        case DenseFfn():
            return _block("", hidden, ffn.width, Part.FFN, gated=ffn.gated, bias=ffn.bias)
        case MoeFfn():
            return _moe_linears(ffn, hidden)


def expert_linears(ffn: Ffn | None, hidden: int) -> tuple[Linear, ...]:
    """List the weight matrices of ONE routed expert; empty for a dense block. Multiply by ``ffn.experts`` for
    all."""
    if not isinstance(ffn, MoeFfn):
        return ()
    return _block("expert_", ffn.latent or hidden, ffn.width, Part.EXPERTS, gated=ffn.gated, bias=ffn.bias)


def _attention_linears(a: Attention, hidden: int) -> tuple[Linear, ...]:
    """Query (cut by heads), keys and values (cut by KV heads), output (cut by inputs)."""
    query_out = a.heads * (a.head_dim + (a.value_dim if a.output_gate else 0))
    query = [Linear("q", hidden, query_out, Shard.COLUMN, _ATTENTION, bias=a.query_bias)]
    if a.query_rank:
        query = [
            Linear("q_a", hidden, a.query_rank, Shard.REPLICATED, _ATTENTION),
            Linear("q_b", a.query_rank, query_out, Shard.COLUMN, _ATTENTION, bias=a.query_bias),
        ]
    width = a.head_dim + (a.value_dim if a.value_projection and not a.values_are_keys else 0)
    keys_values = [Linear("kv", hidden, a.kv_heads * width, Shard.KV, _ATTENTION, bias=a.kv_bias)]
    mixed = a.heads * a.value_dim
    output = [Linear("o", mixed, hidden, Shard.ROW, _ATTENTION, bias=a.output_bias)]
    if a.output_rank:
        width, groups = a.output_rank, a.output_groups
        output = [
            Linear("o_a", mixed // groups, width, Shard.COLUMN, _ATTENTION, copies=groups),
            Linear("o_b", groups * width, hidden, Shard.ROW, _ATTENTION),
        ]
    beside = a.compressed.projections if a.compressed else _indexer_linears(a.indexer, hidden, hidden)
    return (*query, *(() if a.reuses_cache else keys_values), *beside, *output)


def _latent_linears(a: LatentAttention, hidden: int) -> tuple[Linear, ...]:
    """Multi-head latent attention: down-projections on every rank, up-projections cut by heads.

    ``kv_b`` is marked absorbed: decode multiplies it per head into the query and out of the result, so that
    the cache keeps the latent of ``kv_rank`` + ``rope_dim`` elements. Source: DeepSeek-V2, arXiv 2405.04434,
    section 2.1.
    """
    query_out = a.heads * (a.nope_dim + a.rope_dim)
    query = [Linear("q", hidden, query_out, Shard.COLUMN, _ATTENTION)]
    if a.query_rank:
        query = [
            Linear("q_a", hidden, a.query_rank, Shard.REPLICATED, _ATTENTION),
            Linear("q_b", a.query_rank, query_out, Shard.COLUMN, _ATTENTION),
        ]
    return (
        *query,
        Linear("kv_a", hidden, a.kv_rank + a.rope_dim, Shard.REPLICATED, _ATTENTION),
        Linear("kv_b", a.kv_rank, a.heads * (a.nope_dim + a.value_dim), Shard.COLUMN, _ATTENTION, absorbed=True),
        Linear("o", a.heads * a.value_dim, hidden, Shard.ROW, _ATTENTION),
        *_indexer_linears(a.indexer, a.query_rank or hidden, hidden),
    )


def _indexer_linears(indexer: SparseIndexer | None, query_inputs: int, hidden: int) -> tuple[Linear, ...]:
    """Scorer of DeepSeek sparse attention: queries of all its heads, one key, one weight per head; on every
    rank."""
    if indexer is None or indexer.shared:
        return ()
    width = indexer.heads * indexer.head_dim
    # MiniMax-M3 adds its scores up without the weights, which are too few to tell apart here
    return (
        Linear("index_q", query_inputs, width, Shard.REPLICATED, _ATTENTION),
        Linear("index_k", hidden, indexer.head_dim, Shard.REPLICATED, _ATTENTION),
        Linear("index_weight", hidden, indexer.heads, Shard.REPLICATED, _ATTENTION),
    )


def _moe_linears(ffn: MoeFfn, hidden: int) -> tuple[Linear, ...]:
    targets = ffn.experts + ffn.zero_experts
    linears = [Linear("router", hidden, targets, Shard.REPLICATED, Part.ROUTER, bias=ffn.router_bias)]
    if ffn.latent:
        linears.append(Linear("latent_down", hidden, ffn.latent, Shard.REPLICATED, Part.FFN))
        linears.append(Linear("latent_up", ffn.latent, hidden, Shard.REPLICATED, Part.FFN))
    if ffn.shared_width:
        linears += _block("shared_", hidden, ffn.shared_width, Part.FFN, gated=ffn.gated, bias=ffn.bias)
    if ffn.shared_gate:
        linears.append(Linear("shared_gate", hidden, 1, Shard.REPLICATED, Part.ROUTER))
    return tuple(linears)


def _block(prefix: str, hidden: int, width: int, part: Part, *, gated: bool, bias: bool) -> tuple[Linear, ...]:
    """Up (with gate: both in one matrix) and down projections of one feed-forward block."""
    name, outputs = ("gate_up", 2 * width) if gated else ("up", width)
    return (
        Linear(prefix + name, hidden, outputs, Shard.COLUMN, part, bias=bias),
        Linear(prefix + "down", width, hidden, Shard.ROW, part, bias=bias),
    )
