import dataclasses

import pytest
from cost_device import DEVICE, EFFICIENCY, faster, not_above

from planner.cost.efficiency import catalog_folder, load_efficiency, parse_efficiency
from planner.cost.elementwise import elementwise_seconds, recurrent_seconds

SHARES = {"compute", "memory", "memory_fp8", "bandwidth", "custom_direct", "custom_two_phase", "network_bandwidth"}
PROFILES = sorted(path.stem for path in (catalog_folder() / "efficiencies").glob("*.toml"))


@pytest.mark.parametrize("family", PROFILES)
def test_every_profile_loads_with_shares_in_range(family):
    profile = load_efficiency(family)
    blocks = [*profile.gemm.values(), *profile.moe.values(), profile.prefill, profile.decode]
    blocks += [profile.latent_prefill, profile.latent_decode, profile.collective, profile.elementwise]
    for block in blocks:
        for name, value in dataclasses.asdict(block).items():
            assert value >= 0, (family, name)
            assert name not in SHARES or 0 < value <= 1, (family, name)
    assert profile.source


def test_an_unknown_family_runs_on_the_pool_and_says_modelled():
    unknown = load_efficiency("never-seen")
    assert unknown.basis == "modelled"
    assert unknown.gemm == load_efficiency("pool").gemm
    assert load_efficiency("hopper").basis == "calibrated"


def test_a_user_folder_overrides_single_constants(tmp_path):
    (tmp_path / "efficiencies").mkdir()
    (tmp_path / "efficiencies" / "hopper.toml").write_text("[decode]\nmemory = 0.5\n", encoding="utf-8")
    mine = load_efficiency("hopper", [tmp_path])
    assert mine.decode.memory == 0.5
    assert mine.decode.launch == EFFICIENCY.decode.launch


def test_a_misspelt_constant_is_named(tmp_path):
    (tmp_path / "efficiencies").mkdir()
    (tmp_path / "efficiencies" / "hopper.toml").write_text("[decode]\nmemroy = 0.5\n", encoding="utf-8")
    with pytest.raises(ValueError, match="memroy"):
        load_efficiency("hopper", [tmp_path])
    with pytest.raises(KeyError):
        parse_efficiency("empty", {})


def test_elementwise_is_launch_plus_bytes():
    constants = EFFICIENCY.elementwise
    seconds = elementwise_seconds(1e9, accelerator=DEVICE, efficiency=EFFICIENCY)
    assert seconds == pytest.approx(constants.launch + 1e9 / (constants.memory * DEVICE.memory_bandwidth))
    assert elementwise_seconds(0, accelerator=DEVICE, efficiency=EFFICIENCY) == 0.0


def test_recurrent_state_traffic_does_not_depend_on_context():
    def layer(tokens, sequences, device=DEVICE):
        return recurrent_seconds(tokens, sequences, 32, 128, 128, accelerator=device, efficiency=EFFICIENCY)

    assert not_above(layer(64, 64), layer(128, 128))
    assert not_above(layer(64, 1), layer(8192, 1))
    assert not_above(layer(8192, 1, faster(flops=2.0)), layer(8192, 1))
    assert layer(0, 0) == 0.0
