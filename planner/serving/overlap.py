"""Messages that travel while something else is computed.

* Tensor parallelism: fused kernels send the tiles of a product while its others are computed. With the share f of the
  communication hidden (overlap efficiency of Flux, arXiv 2406.06858: 1 - exposed/alone, up to 0.96 there), an
  all-reduce of T seconds beside products of G seconds leaves T - min(f*T, G) exposed.
* Expert parallelism over attention data parallelism: an iteration runs as two halves of compute C and messages M each;
  the messages of one travel while the other computes (two-batch overlap: DeepSeek-V3, arXiv 2412.19437, section 3.4).
  All layers take 2*max(C, M), and the fill of one layer, min(C, M)/layers. Halves read their weights twice, so this is
  worth it only for many tokens: engines switch it on above a threshold, here it runs where it is faster.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike

from planner.serving.layout import Array, floats
from planner.serving.work import Ledger, Work

_PRODUCTS = ("attention linears", "ffn", "experts")
_MESSAGES = "expert dispatch"
_HOST = "host"


def hide_all_reduces(ledger: Ledger, share: float) -> None:
    """Take from the all-reduces of a ledger what fused products hide of them."""
    if share <= 0 or "all-reduce" not in ledger.seconds:
        return
    sent = ledger.seconds["all-reduce"]
    products = sum((ledger.seconds[name] for name in _PRODUCTS if name in ledger.seconds), start=np.zeros(1))
    ledger.seconds["all-reduce"] = sent - np.minimum(share * sent, products)


def half_of(work: Work) -> Work:
    """One of two halves of an iteration: whole prompts where there are several, half a chunk where there is one, whose
    mean prefix is then a quarter of the chunk longer."""
    chunk, prompts = floats(work.chunk), floats(work.prompts)
    several = prompts >= 2
    return replace(
        work, sequences=floats(work.sequences) / 2, chunk=chunk / 2,
        prefix=floats(work.prefix) + np.where(several, 0.0, chunk / 4), prompts=np.where(several, prompts / 2, prompts),
    )  # fmt: skip


def two_batches(plain: Ledger, half: Ledger, layers: int, *, can: ArrayLike = True) -> Ledger:
    """The faster of an iteration in one piece and, where it ``can``, in two halves; host work is done once in both."""
    messages = half.seconds[_MESSAGES]
    compute = np.asarray(sum((v for k, v in half.seconds.items() if k not in (_MESSAGES, _HOST)), start=np.zeros(1)))
    exposed = 2.0 * np.maximum(messages - compute, 0.0) + np.minimum(messages, compute) / layers
    faster = np.asarray(can) & (messages > 0) & (2.0 * compute + exposed + plain.seconds[_HOST] < plain.total)
    found = Ledger()
    for name in {**plain.seconds, **half.seconds}:
        split: Array = exposed if name == _MESSAGES else 2.0 * half.seconds[name]
        whole = plain.seconds[name]
        found.add(name, whole if name == _HOST else np.where(faster, split, whole))
    return found
