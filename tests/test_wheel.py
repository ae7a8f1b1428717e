"""The wheel alone is enough: built, installed into an empty environment elsewhere, run from another folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from planner import __version__

ROOT = Path(__file__).resolve().parents[1]


def run(*words: object, cwd: Path, **options: str) -> str:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")} | options
    done = subprocess.run(list(map(str, words)), cwd=cwd, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, ROOT, cwd=out)
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of programs of an environment that holds the wheel and borrows the dependencies.

    A path that a .pth file adds is searched, but .pth files in it are not read: the editable install of this
    checkout stays invisible.
    """
    home = tmp_path_factory.mktemp("elsewhere") / "venv"
    run(sys.executable, "-m", "venv", "--without-pip", home, cwd=home.parent)
    python = home / "bin" / "python"
    run(sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", wheel, cwd=home.parent)
    (site,) = home.glob("lib/python*/site-packages")
    (site / "dependencies.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    return home / "bin"


def test_the_wheel_carries_every_catalog_file_and_adds_no_module_called_cli(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as packed:
        names = set(packed.namelist())
    for catalog in ("hardware_catalog", "models_catalog"):
        here = {f"planner/{p.relative_to(ROOT).as_posix()}" for p in (ROOT / catalog).rglob("*.toml")}
        assert len(here) > 5 and here <= names
    shipped = ("points.csv", "sources.toml", "left_out.json", "bands.toml")
    assert {f"planner/validation/{name}" for name in shipped} <= names
    assert {"planner/cli.py", "planner/py.typed"} <= names
    assert {name.split("/")[0] for name in names} == {"planner", f"llm_capacity_planner-{__version__}.dist-info"}


def test_an_installed_planner_uses_nothing_of_this_checkout(installed: Path, tmp_path: Path) -> None:
    code = "import importlib.util as u, planner, planner.cli; print(planner.__file__, u.find_spec('cli'))"
    where, cli = run(installed / "python", "-c", code, cwd=tmp_path).split()
    assert Path(where).is_relative_to(installed.parent)
    assert cli == "None"


def test_an_installed_planner_plans_from_any_folder(installed: Path, tmp_path: Path) -> None:
    assert run(installed / "planner", "--version", cwd=tmp_path) == f"planner {__version__}\n"
    words = (
        "search",
        "meta-llama/Llama-3.1-70B",
        "--fleet",
        "h100-sxm:16",
        "--isl",
        "4000",
        "--osl",
        "1000",
        "-o",
        "json",
    )
    found = json.loads(run(installed / "planner", *words, cwd=tmp_path))
    assert found["plans"][0]["gpus_total"] == 16
    assert found["provenance"]["planner_version"] == __version__
    assert list(tmp_path.iterdir()) == []  # a search writes nothing that was not asked for
