"""Moving the KV cache of a prompt from the GPUs that computed it to those that decode.

Every byte crosses once: ranks that hold the same latent cache share the sending, and copies are made behind the
receiving NIC. A message is therefore cut over the NICs of the tp*pp*cp ranks that serve one request on either side, and
the slower side sets the pace:

  seconds = latency + max(bytes/(NICs_prefill * B_prefill), bytes/(NICs_decode * B_decode))

A cache that is sent in n pieces while the prompt is still being computed leaves open what does not fit beside the rest:
exposed = max(seconds/n, seconds - prefill*(n-1)/n), n = 1 (whole request), chunks, or layers (Splitwise, arXiv
2311.18677, section 4.2, for the form by layer).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from planner.architecture.state import kv_bytes, state_bytes
from planner.cost.collective import point_to_point_seconds
from planner.job.tuning import PIECES as PIECES
from planner.job.tuning import Pieces as Pieces
from planner.serving.layout import Array, Layouts, floats
from planner.serving.replica import Replica


@dataclass(frozen=True, slots=True)
class TransferOptions:
    """How KV travels, beyond what the engine of the prefill pool says: ``pieces`` in which it leaves, None as the
    engine does; further ``compression``, bytes before over bytes on the wire, one number or one per row."""

    pieces: Pieces | None = None
    compression: ArrayLike = 1.0


@dataclass(frozen=True, slots=True)
class Transfer:
    """Seconds for one prompt by side; ``seconds`` of the slower one, latency included."""

    egress: Array
    ingress: Array

    @property
    def seconds(self) -> Array:
        """From the first byte to the last."""
        return np.maximum(self.egress, self.ingress)


def request_kv_bytes(replica: Replica, tokens: ArrayLike) -> Array:
    """Bytes of the cache and state of one prompt of ``tokens``, every element once; that of a draft travels too."""
    own = np.asarray(kv_bytes(replica.model, floats(tokens), replica.kv_bytes) + state_bytes(replica.model))
    if replica.speculation is None or replica.speculation.draft is None:
        return own
    return own + request_kv_bytes(replica.speculation.draft, tokens)


def sent_bytes(prefill: Replica, decode: Replica, tokens: ArrayLike, options: TransferOptions) -> Array:
    """Bytes on the wire for one prompt of ``tokens``."""
    smaller = floats(options.compression) * (prefill.engine.kv_compression or 1.0)
    return np.asarray(request_kv_bytes(decode, tokens) / smaller)


def transfer(
    prefill: Replica, decode: Replica, sending: Layouts, receiving: Layouts, size: ArrayLike, *, inside: ArrayLike
) -> Transfer:
    """Seconds to move ``size`` bytes of one request between pools; ``inside`` one scale-up domain where true."""
    return Transfer(_side(prefill, sending, size, inside), _side(decode, receiving, size, inside))


def _side(replica: Replica, layouts: Layouts, size: ArrayLike, inside: ArrayLike) -> Array:
    message = floats(size) / (layouts.tp * layouts.pp * layouts.cp)
    links: dict[str, Any] = {"topology": replica.topology, "efficiency": replica.efficiency}
    near = point_to_point_seconds(message, across=False, **links)
    return np.where(np.asarray(inside, dtype=bool), near, point_to_point_seconds(message, across=True, **links))


def pieces_of(replica: Replica, chunks: ArrayLike, options: TransferOptions) -> Array:
    """In how many pieces the cache of a prompt leaves the prefill GPUs."""
    match options.pieces or replica.engine.kv_transfer or replica.engine.transfer_pieces:
        case "layer":
            return np.full_like(floats(chunks), float(len(replica.model.layers)))
        case "chunk":
            return floats(chunks)
        case _:
            return np.ones_like(floats(chunks))


def exposed_seconds(sending: ArrayLike, prefill: ArrayLike, pieces: ArrayLike) -> Array:
    """Part of ``sending`` seconds that passes after the prompt is computed."""
    n = np.maximum(floats(pieces), 1.0)
    return np.maximum(floats(sending) / n, floats(sending) - floats(prefill) * (n - 1.0) / n)
