"""Where the catalogs lie, and reading their TOML: the only place of this package that touches the disk.

A checkout keeps a built-in catalog at the top level, a wheel inside the package. A user adds folders
with ``--catalog DIR``; each is a *layer* above the built-in one.
"""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from planner.errors import InputError, PlannerError

TomlTable = dict[str, Any]

_PACKAGE = Path(__file__).resolve().parents[1]
_MAX_BYTES = 4_000_000  # a catalog file is read by people; more than this is a mistake


@dataclass(frozen=True, slots=True)
class CatalogFile:
    """One TOML file of a layer, as bytes: they are hashed always and parsed only when asked for.

    Attributes
    ----------
    layer : 0 for the built-in catalog, 1 and up for a user's folders in the order given.
    path : path below the root of its layer, for example ``accelerators/nvidia.toml``.
    where : how messages call it.
    """

    layer: int
    path: str
    where: str
    content: bytes

    @property
    def built_in(self) -> bool:
        """Whether the file ships with planner; stricter rules hold for it (a source everywhere)."""
        return self.layer == 0

    def parse(self) -> TomlTable:
        """Parse the file; raises InputError with its name on anything that is not TOML in UTF-8."""
        try:
            return tomllib.loads(self.content.decode("utf-8-sig"))
        except UnicodeDecodeError as error:
            raise InputError(f"{self.where}: not UTF-8 text (byte {error.start})") from None
        except (tomllib.TOMLDecodeError, RecursionError) as error:
            raise InputError(f"{self.where}: not valid TOML: {error}") from None


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> TomlTable:
    """``base`` with the keys of ``over`` replaced, table by table."""
    found = dict(base)
    for key, value in over.items():
        old = found.get(key)
        found[key] = merged(old, value) if isinstance(old, dict) and isinstance(value, Mapping) else value
    return found


def catalog_root(name: str) -> Path:
    """Folder of the built-in catalog ``name`` (``hardware_catalog``, ``models_catalog``)."""
    for parent in (_PACKAGE, _PACKAGE.parent):
        if (parent / name).is_dir():
            return parent / name
    raise PlannerError(f"the installation lacks its {name} folder", hint="install planner again")


def read_built_in(root: Path) -> list[CatalogFile]:
    """Read every ``*.toml`` below the root of the built-in catalog, ordered by path."""
    files = [_read(path, 0, root) for path in root.rglob("*.toml")]
    return sorted(files, key=lambda file: file.path)


def read_user_layers(root: Path, extra_dirs: Sequence[Path]) -> list[CatalogFile]:
    """Read a user's folders, ordered by layer, then path.

    Of each folder ``DIR/*.toml`` and the sub-folders that the built-in catalog at ``root`` has, so that a
    folder full of other things is not searched.
    """
    below = sorted(path.name for path in root.iterdir() if path.is_dir())
    files: list[CatalogFile] = []
    for layer, folder in enumerate(map(Path, extra_dirs), start=1):
        if not folder.is_dir():
            raise InputError(f"--catalog {folder}: no such folder", hint="name a folder of *.toml files")
        paths = [*folder.glob("*.toml"), *(path for name in below for path in (folder / name).glob("*.toml"))]
        files += [_read(path, layer, folder) for path in paths]
    return sorted(files, key=lambda file: (file.layer, file.path))


def catalog_hash(files: Iterable[CatalogFile]) -> str:
    """SHA-256 over the contents, layer by layer: independent of file order and of where the files lie."""
    digest = hashlib.sha256()
    for file in sorted((file.layer, hashlib.sha256(file.content).hexdigest()) for file in files):
        digest.update(f"{file[0]}:{file[1]}\n".encode())
    return digest.hexdigest()


def _read(path: Path, layer: int, root: Path) -> CatalogFile:
    below = path.relative_to(root).as_posix()
    where = below if layer == 0 else str(path)
    try:
        if not path.is_file() or path.stat().st_size > _MAX_BYTES:
            raise InputError(f"{where}: not a file of at most {_MAX_BYTES:,} bytes")
        return CatalogFile(layer, below, where, path.read_bytes())
    except OSError as error:
        raise InputError(f"{where}: cannot be read: {error.strerror}") from None
