"""Sweeps on a Ray cluster of several processes and nodes on this machine; ``make test-ray`` installs what they need."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from test_sweep import STUDY, dies_on_l4, here

from planner.api import Catalogs
from planner.errors import InputError
from planner.sweep import on_ray, run
from planner.sweep.study import read_study

ray = pytest.importorskip("ray", reason="ray is not installed: make test-ray")
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("study") / "study.yaml"
    path.write_text(STUDY)
    return path


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two nodes of one core, each with processes of its own, that find the test modules."""
    from ray.cluster_utils import Cluster

    before = os.environ.get("PYTHONPATH", "")
    os.environ["PYTHONPATH"] = f"{Path(__file__).parent}{os.pathsep}{before}"
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    made.add_node(num_cpus=1)
    try:
        yield made
    finally:
        made.shutdown()
        os.environ["PYTHONPATH"] = before


@pytest.fixture
def address(cluster: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("RAY_ADDRESS", cluster.address)
    yield cluster.address
    ray.shutdown()


def test_a_cluster_of_two_nodes_gives_the_table_of_one_process(
    study: Path, address: str, tmp_path: Path, command: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = command("sweep", study, "--on", "ray", "--out", tmp_path / "ray.csv")
    assert ran.code == 0 and "4 points; 4 with a plan" in ran.err, ran.err
    monkeypatch.setattr(run, "local_rows", here)
    run.run_study(study, tmp_path / "here.csv", "local", 1, False, Catalogs(), lambda *_: None)
    assert (tmp_path / "ray.csv").read_bytes() == (tmp_path / "here.csv").read_bytes()


def test_a_worker_that_dies_loses_no_finished_row(study: Path, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(on_ray, "_RETRIES", 0)
    monkeypatch.setattr(on_ray, "run_point", dies_on_l4)
    rows = list(on_ray.ray_rows(read_study(study), 2, Catalogs()))
    assert len(rows) == 4 and sum(row["status"] == "crashed" for row in rows) == 1
    assert sum(row["status"] == "ok" for row in rows) == 3


def test_a_node_that_is_lost_loses_no_row_at_all(study: Path, cluster: Any, address: str) -> None:
    lost = cluster.add_node(num_cpus=2)
    rows = []
    for row in on_ray.ray_rows(read_study(study), 2, Catalogs()):
        if not rows:
            cluster.remove_node(lost, allow_graceful=False)
        rows.append(row)
    assert sorted(row["status"] for row in rows) == ["ok"] * 4


def test_a_cluster_that_is_not_there_is_one_clear_error(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "no-such-scheme://nowhere")
    with pytest.raises(InputError, match="no cluster at"):
        list(on_ray.ray_rows(read_study(study), 2, Catalogs()))
