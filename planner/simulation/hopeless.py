"""When a run is sure to miss a limit, however its remaining requests fare."""

from __future__ import annotations

import math

from planner.job.slo import QUANTILE, Slo
from planner.simulation.records import Records

# A limit is missed when the simulation passes it by more than its own sampling error at the usual request count.
TOLERANCE = 0.03
# Until the batch has filled once, latencies are too good.
WARM_UP = 0.25
_ROUNDING = 1e-9


class Hopeless:
    """Counts, in a run of ``count`` equal requests, those that pass a limit by more than ``TOLERANCE``.

    The percentile of n latencies lies at position q(n-1) of their order, so once more than n - q(n-1) of the measured
    requests are above a value, so is the percentile, whatever the others are. A mean is never given up.

    A first token comes a whole answer before its request ends: ``first_token`` counts late ones by then.
    """

    def __init__(self, slo: Slo, count: int) -> None:
        self.missed = False
        share = QUANTILE.get(slo.percentile)
        self._skipped = int(WARM_UP * count)
        measured = count - self._skipped
        self._most = count if share is None else measured - math.floor(share * (measured - 1))
        far = (1.0 + TOLERANCE) * (1.0 + _ROUNDING)
        self._ttft, self._tpot, self._e2e = (
            math.inf if limit is None else limit * far for limit in (slo.ttft, slo.tpot, slo.e2e)
        )
        self._late_firsts: set[int] = set()
        self._late = [0, 0]  # requests beyond the limits on TPOT and on end-to-end time

    def first_token(self, number: int, least: float) -> bool:
        """Hear that the TTFT of request ``number`` is ``least`` seconds or more; True once the limit is missed for
        sure."""
        if least > self._ttft and number >= self._skipped:
            self._late_firsts.add(number)
            self.missed |= len(self._late_firsts) > self._most
        return self.missed

    def __call__(self, records: Records) -> bool:
        """Look at the request that finished last; True once a limit is missed for sure."""
        if records.number[-1] < self._skipped:
            return False
        first, total, output = records.ttft[-1], records.end_to_end[-1], records.output[-1]
        late = self._late
        if total - first > self._tpot * (output - 1):
            late[0] += output > 1
        if total > self._e2e:
            late[1] += 1
        self.missed |= max(late) > self._most
        return self.first_token(records.number[-1], first)
