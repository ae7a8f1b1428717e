"""What is kept of each finished request: one row of numbers, in order of completion."""

from __future__ import annotations

from array import array

from planner.simulation.request import Request


class Records:
    """Columns over finished requests. Times in seconds, lengths in tokens."""

    __slots__ = ("arrival", "end_to_end", "hit_tokens", "number", "output", "preemptions", "prompt", "queued", "ttft")

    def __init__(self) -> None:
        self.number = array("q")
        self.arrival = array("d")
        self.queued = array("d")  # arrival to admission, and waits for links and for the second of two pools
        self.ttft = array("d")
        self.end_to_end = array("d")
        self.prompt = array("q")
        self.output = array("q")
        self.hit_tokens = array("q")
        self.preemptions = array("q")

    def __len__(self) -> int:
        """Finished requests."""
        return len(self.number)

    def add(self, request: Request, offset: float) -> None:
        """Append a request that has its last token; the front-end ``offset`` (s) delays every token alike."""
        arrival = request.arrival
        self.number.append(request.number)
        self.arrival.append(arrival)
        self.queued.append(max(0.0, request.admitted - arrival) + request.waited)
        self.ttft.append(max(0.0, request.first_token - arrival) + offset)
        self.end_to_end.append(max(0.0, request.finished - arrival) + offset)
        self.prompt.append(request.prompt)
        self.output.append(request.output)
        self.hit_tokens.append(request.hit_tokens)
        self.preemptions.append(request.preemptions)
