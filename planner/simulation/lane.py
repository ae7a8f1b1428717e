"""One decode batch: a rank has as many as pipeline stages, each advances by whole iterations in O(1)."""

from __future__ import annotations

from heapq import heappop, heappush

from planner.simulation.request import Request


class Lane:
    """The decoding sequences of one micro-batch.

    ``count`` iterations have passed; a request that joins with r tokens to go leaves at count + r, so
    advancing touches no request. ``needs`` counts sequences by the residue of ``count`` (modulo the block
    size) at which each takes a new KV block.
    """

    __slots__ = (
        "block",
        "chunk_pairs",
        "chunk_tokens",
        "context",
        "count",
        "heap",
        "last_token",
        "late",
        "needs",
        "sequences",
        "to_come",
    )

    def __init__(self, block: int) -> None:
        self.block = block
        self.count = 0
        self.sequences = 0
        self.context = 0  # sum over sequences of prompt + generated (tokens)
        self.to_come = 0  # output tokens that its sequences have still to generate
        self.needs = [0] * block
        self.heap: list[tuple[int, int, int, Request]] = []  # last count, number, preemptions at entry, request
        self.chunk_tokens = 0  # prompt tokens of the iteration in progress
        self.chunk_pairs = 0.0
        self.last_token = 0.0  # moment of the last token of all sequences that are not in ``late``
        self.late: list[float] = []  # moments of the last token of sequences that joined since

    def join(self, request: Request, private_tokens: int) -> None:
        """Start decoding ``request``, which holds ``private_tokens`` tokens, the next one to write included."""
        request.finish_at = self.count + self.steps_left(request)
        request.phase = (self.count - private_tokens + 1) % self.block
        self.needs[request.phase] += 1
        self.sequences += 1
        self.context += request.prompt + request.generated
        self.to_come += request.output - request.generated
        self.late.append(request.last_token)
        heappush(self.heap, (request.finish_at, request.number, request.preemptions, request))

    @property
    def pace(self) -> float:
        """Tokens of all sequences per iteration."""
        return self.sequences

    def steps_left(self, request: Request) -> int:
        """Iterations until a request that joins now has its last token."""
        return request.output - request.generated

    def generated_by(self, request: Request) -> int:
        """Output tokens so far of a request that decodes here."""
        return request.output - (request.finish_at - self.count)

    def advance(self, iterations: int) -> int:
        """Let so many iterations pass: every sequence has one token more for each. Return the tokens of all."""
        tokens = iterations * self.sequences
        self.count += iterations
        self.context += tokens
        self.to_come -= tokens
        return tokens

    def most_growth(self, iterations: int) -> int:
        """KV blocks that ``growth`` surely does not exceed; cheap."""
        return self.sequences * (iterations // self.block + 1)

    def leave(self, request: Request) -> None:
        """Take a request out before its end; its heap entry is skipped later."""
        request.generated = self.generated_by(request)
        if request.last_token in self.late:
            self.late.remove(request.last_token)
        else:
            request.last_token = self.last_token
        self._forget(request)

    def next_completion(self) -> int:
        """Iterations until the first sequence ends. The lane must not be empty."""
        heap = self.heap
        while heap[0][3].preemptions != heap[0][2]:  # preempted since: this entry is stale
            heappop(heap)
        return heap[0][0] - self.count

    def pop_completed(self) -> list[Request]:
        """Remove and return the sequences whose last token exists now, in the order of their numbers."""
        heap, count = self.heap, self.count
        out = []
        while heap and heap[0][0] <= count:
            _, _, preemptions, request = heappop(heap)
            if request.preemptions == preemptions:
                request.generated = request.output
                self._forget(request)
                out.append(request)
        return out

    def growth(self, iterations: int) -> int:
        """KV blocks that the next ``iterations`` iterations allocate."""
        if iterations == 1:
            return self.needs[self.count % self.block]
        if self.block == 1:
            return self.sequences * iterations
        full, rest = divmod(iterations, self.block)
        start = self.count % self.block
        end = start + rest
        part = sum(self.needs[start:end])
        if end > self.block:
            part += sum(self.needs[: end - self.block])
        return full * self.sequences + part

    def _forget(self, request: Request) -> None:
        self.needs[request.phase] -= 1
        self.sequences -= 1
        self.context -= request.prompt + request.generated
        self.to_come -= request.output - request.generated
        request.lane = -1
