"""The hardware catalog as one value: accelerators, nodes, fabrics and prices of all layers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from planner.catalog.accelerators import merge_entries, read_accelerator
from planner.catalog.entry import Entry
from planner.catalog.files import (
    CatalogFile,
    TomlTable,
    catalog_hash,
    catalog_root,
    read_built_in,
    read_user_layers,
)
from planner.catalog.hardware import Accelerator, Fabric, Node, Price
from planner.catalog.names import NameIndex
from planner.catalog.prices import by_price, read_prices, reference_price
from planner.catalog.topology import read_fabric, read_node
from planner.errors import InputError

_CATALOG: Final = "hardware_catalog"
_SECTIONS: Final = ("accelerators", "nodes", "fabrics", "prices", "vendor")
# Files that nothing but prices or nodes need are parsed when those are first asked for.
_LAZY: Final = ("prices.toml", "nodes.toml")
# Sub-folders of the catalog that other readers own; here they only count for the hash.
_OWN_FOLDERS: Final = ("", "accelerators")


class HardwareCatalog:
    """All that planner knows of hardware. Get one from ``load_hardware``."""

    def __init__(self, files: Sequence[CatalogFile]) -> None:
        self._files = files
        own = [file for file in files if _folder(file) in _OWN_FOLDERS]
        self._lazy = [file for file in own if file.built_in and file.path in _LAZY]
        self._eager = [(file, _parse(file)) for file in own if file not in self._lazy]
        self.fabrics: Mapping[str, Fabric] = MappingProxyType(self._read_fabrics())
        self.accelerators: Mapping[str, Accelerator] = MappingProxyType(self._read_accelerators())
        self._names = NameIndex(self.accelerators.values())

    def accelerator(self, name: str) -> Accelerator:
        """Return the accelerator that ``name`` (an id or alias) stands for. Raises UnknownNameError."""
        return self.accelerators[self._names.resolve(name)]

    @cached_property
    def sha256(self) -> str:
        """Hash of the bytes of every catalog file, whatever their order and place."""
        return catalog_hash(self._files)

    @cached_property
    def nodes(self) -> Mapping[str, Node]:
        """Servers and instance types by id."""
        nodes = {}
        for node_id, (file, entry) in sorted(self._entries("nodes", self._all_tables()).items()):
            node = read_node(node_id, entry, built_in=file.built_in)
            self._require(entry, "accelerator", node.accelerator, self.accelerators)
            self._require(entry, "fabric", node.fabric, self.fabrics)
            nodes[node_id] = node
        return MappingProxyType(nodes)

    @cached_property
    def prices(self) -> tuple[Price, ...]:
        """Every dated price; one of a later layer replaces the same offer of an earlier one."""
        offers: dict[tuple[str, ...], Price] = {}
        for file, table in self._all_tables():
            for index, lines in enumerate(_price_lists(file, table), start=1):
                entry = Entry(f"{file.where}: price list {index}", lines)
                for price in read_prices(entry, built_in=file.built_in):
                    self._require(entry, "usd_per_gpu_hour", price.accelerator, self.accelerators)
                    offer = (price.accelerator, price.provider, price.instance, price.term, price.region)
                    offers[offer] = price
        return tuple(offers[offer] for offer in sorted(offers))

    def prices_for(self, name: str) -> tuple[Price, ...]:
        """Return the prices of one accelerator, cheapest first."""
        wanted = self.accelerator(name).id
        return tuple(sorted((price for price in self.prices if price.accelerator == wanted), key=by_price))

    def reference_price(self, name: str, term: str = "on-demand") -> Price | None:
        """Return the price that stands for the market (see ``prices.reference_price``), or None."""
        return reference_price(self.prices_for(name), term)

    def cheapest_price(self, name: str, term: str = "on-demand") -> Price | None:
        """Return the cheapest offer for ``term``, or None without an offer."""
        return next((price for price in self.prices_for(name) if price.term == term), None)

    def _all_tables(self) -> list[tuple[CatalogFile, TomlTable]]:
        return [*((file, _parse(file)) for file in self._lazy), *self._eager]

    def _read_fabrics(self) -> dict[str, Fabric]:
        entries = sorted(self._entries("fabrics", self._eager).items())
        return {name: read_fabric(name, entry, built_in=file.built_in) for name, (file, entry) in entries}

    def _read_accelerators(self) -> dict[str, Accelerator]:
        found = {}
        for name, (file, entry) in sorted(self._entries("accelerators", self._eager).items()):
            found[name] = read_accelerator(name, entry, self.fabrics, built_in=file.built_in)
        return found

    @staticmethod
    def _entries(
        section: str, tables: Sequence[tuple[CatalogFile, TomlTable]]
    ) -> dict[str, tuple[CatalogFile, Entry]]:
        """Collect the entries of a section by id; a later layer lays its entry over an earlier one's."""
        found: dict[str, tuple[CatalogFile, Entry]] = {}
        for file, table in tables:
            for name, values in _named_tables(file, section, table):
                entry = Entry(f"{file.where}: {section}.{name}", values)
                if name in found:
                    below, old = found[name]
                    if below.layer == file.layer:
                        raise InputError(f"{entry.where}: already defined in {below.where}")
                    entry.table = merge_entries(old.table, entry.table)
                found[name] = (file, entry)
        return found

    @staticmethod
    def _require(entry: Entry, key: str, name: str, known: Mapping[str, Any]) -> None:
        if name not in known:
            raise entry.fail(key, f"{name[:80]!r} is not in the catalog", "use the id, not an alias")


def load_hardware(extra_dirs: Sequence[Path] = ()) -> HardwareCatalog:
    """Load the built-in hardware catalog and the user's folders over it.

    Parameters
    ----------
    extra_dirs : folders with ``*.toml`` files of accelerators, nodes, fabrics or prices. An entry with a new
        id is added; one with a known id replaces the keys it names. Later folders win.

    The result is cached; a user's files are read again each time and parsed again when they changed.
    Raises InputError in one line: file, entry, key.
    """
    built_in = _built_in_files()
    if not extra_dirs:
        return _catalog(built_in)
    return _catalog((*built_in, *read_user_layers(catalog_root(_CATALOG), extra_dirs)))


@lru_cache(maxsize=1)
def _built_in_files() -> tuple[CatalogFile, ...]:
    return tuple(read_built_in(catalog_root(_CATALOG)))


@lru_cache(maxsize=8)
def _catalog(files: tuple[CatalogFile, ...]) -> HardwareCatalog:
    return HardwareCatalog(files)


def _folder(file: CatalogFile) -> str:
    return file.path.rpartition("/")[0]


def _parse(file: CatalogFile) -> TomlTable:
    table = file.parse()
    Entry(file.where, table).refuse_unknown(_SECTIONS)
    return table


def _named_tables(file: CatalogFile, section: str, table: TomlTable) -> Iterator[tuple[str, Any]]:
    entries = Entry(file.where, table).entry(section).table
    vendor = {"vendor": table["vendor"]} if section == "accelerators" and "vendor" in table else {}
    for name, values in entries.items():
        yield name, vendor | values if isinstance(values, dict) else values


def _price_lists(file: CatalogFile, table: TomlTable) -> list[Any]:
    lists = table.get("prices", [])
    if not isinstance(lists, list):
        raise InputError(f"{file.where}: prices: write each price list under [[prices]]")
    return lists
