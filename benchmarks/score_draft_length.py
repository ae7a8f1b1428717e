"""Which draft length pays, by what an H200 took for the steps, and by what planner predicts.

Tokens per second of a batch are ``batch * E(k) / T(k)``, T(k) a step with its drafts (serving/speculation.py), for a
Llama-3.1-8B with an EAGLE head over 32,000 tokens. Measured are the step, the passes of the draft (the first over 1 + k
tokens of each sequence, between or beyond those of 1 and 4 by a straight line, then k - 1 over one) and greedy
acceptance; k = 5 and 6 lie between the steps of k = 4 and 7. One drafted token pays from acceptance T(1)/T(0) - 1.
The choice is that of a search, which looks at 0 and ``LENGTHS``; it is good where its measured tokens per second come
within 3 % of the best. Nothing is fitted on these rows (steps_h200.py).

    python benchmarks/score_draft_length.py
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from steps_h200 import REPLICA, measured, on_gpu_only, seconds_of

from planner.job.speculating import Speculating
from planner.serving.drafting import Drafting
from planner.serving.replica import Replica
from planner.serving.speculation import LENGTHS, Acceptance
from planner.serving.work import Work

RATES = (0.6, 0.7, 0.8)
DRAFTS = np.arange(8)
CLOSE = 0.97
VOCABULARY = 32_000
Times = Mapping[tuple[int, int], np.ndarray]


def measured_times(kernel: str) -> Times:
    """Seconds of a step with its drafts for each k of ``DRAFTS``, by (context, batch)."""
    found = {(operator, name): c for operator, name, c in measured()}
    steps, drafts, accepts = found["decode_step", kernel], found["draft_step", "fa3"], found["accept", "torch"]
    times = {}
    for context, batch in sorted({(int(c), int(b)) for c, b in zip(steps["context"], steps["batch"], strict=True)}):
        here = (steps["context"] == context) & (steps["batch"] == batch)
        seconds = np.interp(1.0 + DRAFTS, steps["q_len"][here], steps["seconds"][here])
        of_head = (drafts["context"] == context) & (drafts["batch"] == batch) & (drafts["vocab"] == VOCABULARY)
        one, four = (float(drafts["seconds"][of_head & (drafts["q_len"] == q)][0]) for q in (1, 4))
        first = one + (four - one) / 3 * DRAFTS
        accepting = float(np.median(accepts["seconds"][accepts["batch"] == batch]))
        times[context, batch] = seconds + np.where(DRAFTS > 0, first + (DRAFTS - 1) * one + accepting, 0.0)
    return times


def predicted_times(target: Replica, points: Times) -> Times:
    """The same from the model."""
    eagle = Drafting(Speculating(method="eagle"))
    kinds = [target, *(replace(target, speculation=eagle.speculation(target, int(k))) for k in DRAFTS[1:])]
    return {
        (context, batch): np.array([seconds_of(kind, Work(float(batch), float(context))).item() for kind in kinds])
        for context, batch in points
    }


def gain(times: np.ndarray, rate: float) -> np.ndarray:
    """Tokens of a sequence per second for each k."""
    return np.array([Acceptance((rate,)).tokens(int(k)) for k in DRAFTS]) / times


def score(known: Times, predicted: Times, *, show: bool) -> list[tuple[float, float, bool]]:
    """Of each point and rate, what the predicted choice reaches of the best k and of the best that is searched, as
    measured, and whether it is the former."""
    searched = np.array([0, *LENGTHS])
    results = []
    for (context, batch), times in known.items():
        for rate in RATES:
            truth, guess = gain(times, rate), gain(predicted[context, batch], rate)
            choice, best = int(searched[np.argmax(guess[searched])]), int(np.argmax(truth))
            share = float(truth[choice] / truth[best])
            results.append((share, float(truth[choice] / truth[searched].max()), choice == best))
            if show:
                cells = " ".join(f"{batch * x:7.0f}" for x in truth)
                print(f"{context:7d} {batch:5d} {rate:4.1f}  {cells}   {best:4d} {choice:7d} {100 * share:8.1f}")
    return results


def main() -> None:
    """Print measured tokens per second by k, the best k and the predicted one; then how often they agree."""
    print(f"context batch rate  {' '.join(f'    k={k}' for k in DRAFTS)}    best planner  reached %")
    engine = REPLICA.engine
    summary = []
    for kernel in ("fa3", "flashinfer"):
        print(f"{kernel}, GPU alone")
        known = measured_times(kernel)
        alone = on_gpu_only(REPLICA)
        summary.append((f"{kernel}, GPU alone", score(known, predicted_times(alone, known), show=True)))
        # the host is that of the engine profile on both sides: it was not measured
        hosted = {point: times + engine.step + engine.sequence * point[1] for point, times in known.items()}
        summary.append((f"{kernel}, with its host", score(hosted, predicted_times(REPLICA, known), show=False)))
        print(f"{kernel}: acceptance below which not even one drafted token pays, measured / predicted")
        for point, expected in predicted_times(alone, known).items():
            needed = [times[1] / times[0] - 1 for times in (known[point], expected)]
            print(f"{point[0]:7d} {point[1]:5d}   {needed[0]:.2f} / {needed[1]:.2f}")
    print("\nchoice within 3 % of the best of all k / of those searched; lost of the best of all: mean, worst")
    for label, results in summary:
        shares, among, same = np.array(results, dtype=float).T
        lost = 100 * (1 - shares)
        print(
            f"{label:24s} {np.sum(shares >= CLOSE):3d} / {np.sum(among >= CLOSE):3d} of {len(shares)}"
            f"   {lost.mean():.1f} %   {lost.max():.1f} %   same k {100 * np.mean(same):.0f} %"
        )


if __name__ == "__main__":
    main()
