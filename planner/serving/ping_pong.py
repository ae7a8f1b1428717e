"""The ping-pong of micro-batches between attention and feed-forward workers: seconds of one decode iteration.

A layer takes a micro-batch through attention t_a, dispatch t_d, feed-forward t_f and combine t_c. Each occupies
something of its own: attention GPUs, the network to the experts, the links inside a feed-forward worker, its GPUs, the
network back (the two directions do not compete). With m micro-batches in flight and t_max the longest occupation
(MegaScale-Infer, arXiv 2504.02263, equations 1 to 5; Step-3, arXiv 2507.19427, section 4, with m = 3 and three stages):

  cycle of a layer = max(m * t_max, t_a + t_d + t_f + t_c)
  iteration        = sum of the cycles + (t_a + t_d + t_f + t_c) - t_max of one layer for the fill

Stages are hidden behind the slowest one once m >= (t_a + t_d + t_f + t_c)/t_max; m = 1 adds all of them up. A link is
occupied for its wire bytes; a message also takes the latencies, which delay but occupy nothing.

Passes of a draft are further layers behind those of the target: a micro-batch starts one when the one before is over,
so that each has a cycle of its own. Their host work stands between the passes of a micro-batch, one after the other.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from planner.serving.ffn_messages import Messages
from planner.serving.layout import Array


@dataclass(frozen=True, slots=True)
class Stages:
    """One micro-batch, in seconds summed over the layers; ``host`` per micro-batch and iteration.

    ``attention``, ``dispatch``, ``ffn`` and ``combine`` follow each other; ``busy`` says for how long each link is
    occupied by it. ``drafts`` are the passes that draft, equal ones as one.
    """

    attention: Array
    dispatch: Array
    ffn: Array
    combine: Array
    host: Array
    layers: float
    busy: Messages | None = None
    drafts: tuple[Stages, ...] = ()

    def times(self, passes: float) -> Stages:
        """So many equal passes, one after the other."""
        busy = None if self.busy is None else self.busy.times(passes)
        return Stages(
            passes * self.attention, passes * self.dispatch, passes * self.ffn, passes * self.combine,
            passes * self.host, passes * self.layers, busy,
        )  # fmt: skip

    @property
    def total(self) -> Array:
        """One micro-batch through all layers alone."""
        return self.attention + self.dispatch + self.ffn + self.combine

    @property
    def occupied(self) -> dict[str, Array]:
        """Seconds that one micro-batch occupies each resource."""
        links = self.busy or Messages(self.dispatch, self.combine, self.dispatch, self.combine, 0.0 * self.dispatch)
        return {
            "attention": self.attention,
            "network to the experts": links.to_ffn,
            "links inside FFN workers": links.inside,
            "ffn": self.ffn,
            "network back": links.back,
        }

    @property
    def slowest(self) -> Array:
        """The occupation that sets the pace."""
        first, *others = self.occupied.values()
        for seconds in others:
            first = np.maximum(first, seconds)
        return first

    def iteration(self, micro_batches: Array) -> Array:
        """Seconds of one decode iteration of all micro-batches; see the module."""
        cycles = np.maximum(micro_batches * self.slowest, self.total)
        filled = cycles + (micro_batches > 1) * (self.total - self.slowest) / self.layers
        host = self.host
        if self.drafts:
            filled = filled + self.drafting(micro_batches)
            host = np.where(micro_batches > 1, host + sum(draft.host for draft in self.drafts), host)
        # The host prepares one micro-batch while the others are computed; alone, everybody waits for it.
        return np.where(micro_batches > 1, np.maximum(filled, micro_batches * host), filled + host)

    def drafting(self, micro_batches: Array) -> Array:
        """Seconds of an iteration in which passes draft: their cycles, in which the host is one more resource."""
        seconds = np.zeros(1)
        for draft in self.drafts:
            slowest = np.maximum(draft.slowest, draft.host)
            seconds = seconds + np.maximum(micro_batches * slowest, draft.total + draft.host)
        return seconds

    def limiting(self, micro_batches: Array) -> list[str]:
        """What sets the pace, row by row: the name of a resource, or ``latency`` where too few micro-batches hide the
        way of one through a layer."""
        names = list(self.occupied)
        table = np.array([np.broadcast_to(self.occupied[name], self.total.shape) for name in names])
        hidden = micro_batches * self.slowest >= self.total
        return [names[i] if ok else "latency" for i, ok in zip(table.argmax(axis=0), hidden, strict=True)]
