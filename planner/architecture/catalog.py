"""Models by name: the catalog's id or alias, or the path of a config.json.

Each model is one file named by the slug of its id, so that resolving one name reads one file. Aliases are in
``index.toml``, which :func:`write_index` makes from the files.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Final

from planner.architecture.distill import restore
from planner.architecture.model import Model
from planner.errors import InputError, UnknownNameError

_INDEX: Final = "index.toml"
_LISTING: Final = "planner catalog models"


def load_model(name_or_path: str, extra_dirs: Sequence[Path] = (), assume_architecture: str | None = None) -> Model:
    """Return the model of that catalog name or alias (any case), or of a config.json, its folder or a TOML
    file.

    Parameters
    ----------
    name_or_path : ``meta-llama/Llama-3.1-70B``, ``llama-3.1-70b``, ``./my-model/config.json`` ...
    extra_dirs : folders of the user with model files, searched before the catalog.
    assume_architecture : the family for a config.json whose ``model_type`` is unknown.

    Raises UnknownNameError with near names, or InputError when a file cannot be used.
    """
    name = name_or_path.strip()
    path = Path(name).expanduser()
    if name and _is_existing(path):
        return _from_path(path, assume_architecture)
    for folder in (*extra_dirs, catalog_dir()):
        file = _find(folder, name)
        if file is not None:
            return _read(file)
    if name.endswith((".json", ".toml")) or name.startswith((".", "/", "~")):
        what = f"no config.json in {name}" if _is_folder(path) else f"no such file: {name}"
        raise InputError(what, hint="give a config.json, its folder, or a catalog name")
    raise UnknownNameError("model", name, known_models(extra_dirs), listing=_LISTING)


def known_models(extra_dirs: Sequence[Path] = ()) -> tuple[str, ...]:
    """List the ids of all models of the catalog and of the user's folders, sorted, without reading model
    files."""
    ids = {found for folder in (*extra_dirs, catalog_dir()) for found in _index(folder)[0].values()}
    return tuple(sorted(ids, key=str.lower))


def catalog_dir() -> Path:
    """Return the folder of model files: inside the package when installed, beside it in a checkout."""
    package = Path(__file__).parents[1]
    inside = package / "models_catalog"
    return inside if inside.is_dir() else package.parent / "models_catalog"


def slug(model_id: str) -> str:
    """Return the file stem of a model id: ``Qwen/Qwen3-8B`` is ``qwen--qwen3-8b``."""
    return model_id.lower().replace("/", "--").replace(" ", "-")


def write_index(folder: Path) -> None:
    """Write ``index.toml``: ids by slug, and the slug of each alias. Raises InputError when two models share
    a name."""
    models = {slug_of(file): _read(file) for file in _model_files(folder)}
    aliases: dict[str, str] = {}
    for stem, model in models.items():
        for name in _names(model):
            key = name.lower()
            if (slug(key) in models and slug(key) != stem) or aliases.setdefault(key, stem) != stem:
                raise InputError(f"two models are called {name!r}: {aliases.get(key, slug(key))} and {stem}")
    lines = ["# Made by planner.architecture.catalog.write_index from the files of this folder.", "[models]"]
    lines += [f'"{stem}" = "{model.id}"' for stem, model in models.items()]
    lines += ["", "[aliases]", *(f'"{name}" = "{stem}"' for name, stem in sorted(aliases.items()))]
    (folder / _INDEX).write_text("\n".join(lines) + "\n", encoding="utf-8")


def _names(model: Model) -> Iterable[str]:
    """Yield every name of a model but its id: aliases, and all of them without their organisation."""
    yield from model.aliases
    yield from (name.rpartition("/")[2] for name in (model.id, *model.aliases) if "/" in name)


def slug_of(file: Path) -> str:
    """Return the slug that a model file is named by."""
    return file.stem


def _find(folder: Path, name: str) -> Path | None:
    """Find the file of a name: by its slug, else by the index of aliases."""
    stem = slug(name)
    file = folder / f"{stem}.toml"
    if stem and stem != Path(_INDEX).stem and file.parent == folder and _is_file(file):
        return file
    alias = _index(folder)[1].get(name.lower())
    return folder / f"{alias}.toml" if alias else None


@cache
def _index(folder: Path) -> tuple[dict[str, str], dict[str, str]]:
    """Read ids by slug and slugs by alias. A user's folder may have no index: then its files are read."""
    file = folder / _INDEX
    if file.is_file():
        table = tomllib.loads(file.read_text(encoding="utf-8"))
        return table["models"], table["aliases"]
    models = {slug_of(file): _read(file) for file in _model_files(folder)}
    names = {name.lower(): stem for stem, model in models.items() for name in (model.id, *_names(model))}
    return {stem: model.id for stem, model in models.items()}, names


def _model_files(folder: Path) -> Iterable[Path]:
    return sorted(file for file in folder.glob("*.toml") if file.name != _INDEX)


def _read(file: Path) -> Model:
    return restore(file.read_text(encoding="utf-8"), file.name)


def _is_existing(path: Path) -> bool:
    """Say whether a file or folder is meant: a catalog name beats a folder that happens to be called so."""
    return _is_file(path) or _is_file(path / "config.json")


def _is_file(path: Path) -> bool:
    """Say whether a file is there; a name that no file can have (too long, with NUL) is not."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def _from_path(path: Path, assume_architecture: str | None) -> Model:
    if path.suffix == ".toml":
        return _read(path)
    from planner.architecture.config import import_config  # families are only needed for a config.json

    return import_config(path, assume_architecture=assume_architecture)
