"""A user's own measurements move the predictions toward them, the more the more there are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from planner.accuracy.calibrate import calibrate, fit_factors, scaled
from planner.accuracy.measured import Measured, measured_point, shipped_points
from planner.accuracy.predict import Predictor, as_shipped
from planner.accuracy.usable import refuse_unusable
from planner.api import Catalogs, estimate, search, simulate
from planner.errors import InputError
from planner.job.parse import parse_job
from planner.job.points import Point, PoolPoint
from planner.job.traffic import Traffic
from planner.report.calibration import note_profile, warn_unused
from planner.report.explain import explain_plan
from planner.report.plans import caveat
from planner.serving.profile import Calibration, Profile, read_profile

PREDICTOR = Predictor()


def point(concurrency: float, tp: int = 2, model: str = "meta-llama/Llama-3.1-8B", isl: float = 1000) -> Point:
    name = f"{model} c{concurrency} tp{tp}"
    return Point(name, model, "h100-sxm", "bf16", engine="vllm", concurrency=concurrency, isl=isl, osl=300,
                 pool=PoolPoint(tp=tp))  # fmt: skip


def measured(points: list[Point], kernels: float = 1.0, overhead: float = 1.0) -> list[Measured]:
    """Measurements of a deployment whose kernels and overheads take so many times the prior."""
    truth = scaled(as_shipped, np.log([kernels, overhead, 1.0]))
    found = PREDICTOR(points, truth)
    return [Measured(p, "", e.tpot, e.ttft, None, e.output_rate_per_gpu) for p, e in zip(points, found, strict=True)]


def test_results_that_agree_with_the_prior_change_nothing() -> None:
    x = fit_factors(measured([point(4), point(64)]), PREDICTOR)
    assert x == pytest.approx(np.zeros(3), abs=1e-9)


def test_more_points_come_closer_to_the_truth_and_one_moves_only_part_of_the_way() -> None:
    points = [point(4), point(64), point(16, tp=1), point(128), point(32, tp=4), point(8, isl=4000), point(96)]
    rest = measured([point(48), point(24, tp=1)], kernels=1.3)
    errors = []
    for k in (0, 1, 3, 7):
        x = fit_factors(measured(points[:k], kernels=1.3), PREDICTOR) if k else np.zeros(3)
        found = PREDICTOR([m.point for m in rest], scaled(as_shipped, x))
        errors.append(np.mean([abs(e.tpot / m.tpot - 1) for e, m in zip(found, rest, strict=True)]))
        assert k != 1 or 0 < x[0] < np.log(1.3)
    assert errors[0] > errors[1] > errors[2] > errors[3] and errors[3] < 0.25 * errors[0]


def test_one_result_that_is_off_by_chance_moves_the_others_little() -> None:
    # a result 15 % off, as one in ten is inside a group, among others that agree with the prior
    (true,) = measured([point(32)])
    odd = replace(true, tpot=true.tpot * 1.15, output_rate_per_gpu=true.output_rate_per_gpu / 1.15)
    rest = measured([point(4), point(16), point(96), point(32, tp=4)])
    found = PREDICTOR([m.point for m in rest], scaled(as_shipped, fit_factors([odd], PREDICTOR)))
    assert all(1.0 < e.tpot / m.tpot < 1.03 for e, m in zip(found, rest, strict=True))


def test_results_that_agree_with_each_other_are_believed_and_those_that_contradict_are_not() -> None:
    points = measured([point(4), point(32), point(16, tp=1), point(96)])
    alike = [replace(m, tpot=m.tpot * 1.2) for m in points]
    unlike = [replace(m, tpot=m.tpot * f) for m, f in zip(points, (1.2, 0.85, 0.85, 1.2), strict=True)]
    moved, kept = (np.abs(fit_factors(group, PREDICTOR)[:2]).max() for group in (alike, unlike))
    assert moved > 4 * kept


def test_the_error_after_is_of_points_left_out() -> None:
    points = measured([point(c, tp) for c in (4, 16, 64) for tp in (1, 2)], kernels=1.25)
    (entry,) = calibrate(points, PREDICTOR).calibrations
    assert entry.points == 6 and entry.kernels > 1.1
    assert entry.error_after < 0.5 * entry.error_before


def test_several_models_on_one_gpu_also_give_an_entry_for_any_model() -> None:
    points = measured([point(16), point(16, 8, "meta-llama/Llama-3.1-70B")], kernels=1.2)
    entries = calibrate(points, PREDICTOR).calibrations
    assert [entry.model for entry in entries] == ["meta-llama/Llama-3.1-70B", "meta-llama/Llama-3.1-8B", "*"]
    profile = Profile(entries)
    assert profile.find("qwen/qwen3-32b", "h100-sxm", "vllm") == entries[-1]
    assert profile.find("meta-llama/Llama-3.1-8B", "h100-sxm", "sglang") is None


def test_a_result_that_cannot_be_run_is_refused_by_name() -> None:
    too_large = point(16, 1, "meta-llama/Llama-3.1-405B")
    with pytest.raises(InputError, match="405B c16 tp1: needs"):
        calibrate([Measured(too_large, "", 0.01, None, None, None)], PREDICTOR)


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"ttft_ms": "80", "tpot_ms": "0.009"}, "tpot of 0.009 ms, where"),  # seconds
        ({"ttft_ms": "0.08", "tpot_ms": "9"}, "ttft of 0.08 ms"),
        ({"ttft_ms": "80", "tpot_ms": "9", "output_tok_s_per_gpu": "8.5"}, "imply 0.1"),  # requests/s
        ({"ttft_ms": "-80", "tpot_ms": "9"}, "ttft_ms is '-80'"),
        ({"ttft_ms": "80", "tpot_ms": "9ms"}, "tpot_ms is '9ms'"),
        ({"tpot_ms": ""}, "nothing was measured"),
    ],
)
def test_a_result_in_other_units_or_without_numbers_is_refused(columns: dict[str, str], said: str) -> None:
    p = replace(point(16), extra=columns)
    with pytest.raises(InputError, match=said):
        refuse_unusable(measured_point(p), PREDICTOR([p])[0])


def test_no_published_point_is_taken_for_a_wrong_unit() -> None:
    points = shipped_points()[::7]
    for m, found in zip(points, PREDICTOR([m.point for m in points]), strict=True):
        if found.status == "ok":
            refuse_unusable(m, found)


def test_a_profile_survives_its_file(tmp_path: Path) -> None:
    profile = Profile((Calibration("a", "h100-sxm", "vllm", 1.2, 0.9, 1.5, 5, 0.12, 0.05),))
    (tmp_path / "p.toml").write_text(profile.text())
    assert read_profile(tmp_path / "p.toml") == profile


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no [[calibration]]"),
        ("[[calibration", "not TOML"),
        ('[[calibration]]\nmodel = "a"\ngpu = "b"\n', "no engine"),
        ('[[calibration]]\nmodel = "a"\ngpu = "b"\nengine = "c"\nkernels = 40\n', "kernels is 40"),
        ('[[calibration]]\nmodel = "a"\ngpu = "b"\nengine = "c"\nspeed = 1\n', "unknown key 'speed'"),
    ],
)
def test_a_file_that_is_no_profile_is_refused(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "p.toml").write_text(text)
    with pytest.raises(InputError, match=said.replace("[", r"\[")):
        read_profile(tmp_path / "p.toml")


def test_a_profile_slows_estimates_and_plans_of_its_model_and_gpu_only() -> None:
    slow = Profile((Calibration("meta-llama/Llama-3.1-8B", "h100-sxm", "vllm", 1.5, 1.5, 1.0, 5),))
    tuned = Catalogs(profile=slow)
    elsewhere = replace(point(16), gpu="b200-sxm")
    (before, same), (after, still) = (estimate([point(16), elsewhere], catalogs=c) for c in (Catalogs(), tuned))
    assert after.tpot > 1.3 * before.tpot and still.tpot == same.tpot
    job = parse_job(model="meta-llama/Llama-3.1-8B", fleet="h100-sxm:2", isl="1000", osl="300", simulate_top=0)
    files = [search(job, catalogs=c) for c in (Catalogs(), tuned)]
    fast, slower = (file.plans[0] for file in files)
    assert slower.predicted.output_tok_s < 0.8 * fast.predicted.output_tok_s
    assert (fast.basis, slower.basis) == ("calibrated", "calibrated")
    assert (fast.calibrated_by, slower.calibrated_by) == ({"h100-sxm": "family"}, {"h100-sxm": "profile"})
    assert "fitted to measurements" in caveat(files[0], fast) and "by your profile" in caveat(files[1], slower)


def test_no_factor_takes_kernels_near_the_datasheet() -> None:
    engine = Catalogs().replica("meta-llama/Llama-3.1-8B", "h100-sxm", "bf16", "", "vllm").engine
    fast = Calibration("", "", "", kernels=0.2).apply(engine)
    assert fast.dense_slowdown == 0.85 and fast.expert_slowdown <= engine.expert_slowdown


def test_a_saved_plan_is_explained_and_simulated_with_the_calibration_it_was_made_with() -> None:
    slower = Calibration("meta-llama/Llama-3.1-8B", "h100-sxm", "vllm", kernels=1.5, points=3)
    asked = parse_job(model="llama-3.1-8b", fleet="h100-sxm:1", isl="1000", osl="200", rate="5/s", simulate_top=0)
    saved = search(asked, catalogs=Catalogs(profile=Profile((slower, replace(slower, engine="sglang")))))
    plain = search(asked)
    assert [row["kernels"] for row in saved.provenance.calibrations] == [1.5]
    assert plain.provenance.calibrations == []
    told = explain_plan(saved, 1, Catalogs(), lambda _: None)
    untold = explain_plan(plain, 1, Catalogs(), lambda _: None)
    steps = [sum(e["decode_iteration_ms"].values()) for e in (told, untold)]
    assert steps[0] > 1.2 * steps[1]
    few = Traffic(requests=200)
    slow, fast = (simulate(file, traffic=few).record()["simulated"]["tpot_ms"]["mean"] for file in (saved, plain))
    assert slow > 1.2 * fast
    assert Catalogs(profile=Profile((slower,))).of_plan(plain).profile.calibrations == (slower,)
    wrong = saved.provenance.model_copy(update={"calibrations": [{"model": "m"}]})
    with pytest.raises(InputError, match="the saved plan, calibration 1: no engine"):
        Catalogs().of_plan(saved.model_copy(update={"provenance": wrong}))


def test_outputs_say_what_a_profile_calibrates_and_what_it_does_not(capsys: pytest.CaptureFixture[str]) -> None:
    profile = Profile(tuple(Calibration(f"m{n}", "h100-sxm", "vllm", points=n) for n in range(1, 6)))
    note_profile(Path("p.toml"), profile)
    said = capsys.readouterr().err
    assert said.startswith("calibrated by p.toml: m1 on h100-sxm with vllm (1 result), m2 ") and "and 2 more" in said
    warn_unused(profile, "m1", ["h100-sxm"], "vllm")
    warn_unused(Profile(), "m9", ["h100-sxm"], "vllm")
    assert capsys.readouterr().err == ""
    warn_unused(profile, "m1", ["h100-sxm", "b200-sxm"], "vllm")
    assert "no entry for m1 on b200-sxm with vllm" in capsys.readouterr().err
