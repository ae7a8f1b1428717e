"""Price lists, and the one price that stands for an accelerator when a user names none.

A list says provider, term, region, date and source once; each row is
``[instance, accelerator, GPUs of the instance, US dollars per GPU and hour]``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final

from planner.catalog.entry import USER_SOURCE, Entry
from planner.catalog.hardware import Price

TERMS: Final = ("on-demand", "spot", "reserved-1y", "reserved-3y")
_KEYS: Final = ("provider", "term", "region", "date", "source", "usd_per_gpu_hour")
_DATE = re.compile(r"20\d\d(-(0[1-9]|1[0-2])(-(0[1-9]|[12]\d|3[01]))?)?")


def read_prices(entry: Entry, *, built_in: bool) -> list[Price]:
    """Turn one price list into prices; the accelerator stays as written. Raises InputError."""
    entry.refuse_unknown(_KEYS)
    term = entry.text("term")
    if term not in TERMS:
        raise entry.fail("term", f"must be one of {', '.join(TERMS)}")
    date = entry.text("date", None if built_in else "")
    if date and not _DATE.fullmatch(date):
        raise entry.fail("date", f"{date[:40]!r} is not a date", 'write "2026-07-20", "2026-07" or "2026"')
    provider = entry.text("provider", None if built_in else "own")
    region = entry.text("region", "")
    source = entry.text("source", None if built_in else USER_SOURCE)
    rows = entry.table.get("usd_per_gpu_hour")
    if not isinstance(rows, list):
        raise entry.fail("usd_per_gpu_hour", "must be a list of [instance, accelerator, GPUs, price] rows")
    prices = []
    for row in rows:
        instance, accelerator, gpus, usd = _read_row(entry, row)
        where = (region, date, source)
        prices.append(Price(provider, instance, accelerator, gpus, term, usd, *where, own=not built_in))
    return prices


def _read_row(entry: Entry, row: Any) -> tuple[str, str, int, float]:
    if not isinstance(row, list) or len(row) != 4:
        raise entry.fail("usd_per_gpu_hour", "each row is [instance, accelerator, GPUs, price]")
    names = ("instance", "accelerator", "gpus", "usd_per_gpu_hour")
    cells = Entry(entry.where, dict(zip(names, row, strict=True)))
    return (
        cells.text("instance"),
        cells.text("accelerator"),
        cells.integer("gpus", 1, 100_000),
        cells.number("usd_per_gpu_hour", 0.001, 1000),
    )


def reference_price(prices: Iterable[Price], term: str) -> Price | None:
    """Choose the price that stands for the market: the median provider, each with its cheapest offer.

    Taking each provider once keeps one with many instance sizes and regions from outvoting the others;
    the lower of two medians keeps the answer a real offer. Offers from before the year preceding the newest
    one do not count. A user's own prices exclude the built-in ones.
    """
    offers = [price for price in prices if price.term == term]
    offers = [price for price in offers if price.own] or offers
    newest = max((int(offer.date[:4]) for offer in offers if offer.date), default=0)
    offers = [offer for offer in offers if not offer.date or int(offer.date[:4]) >= newest - 1]
    cheapest: dict[str, Price] = {}
    for offer in sorted(offers, key=by_price):
        cheapest.setdefault(offer.provider, offer)
    if not cheapest:
        return None
    ranked = sorted(cheapest.values(), key=by_price)
    return ranked[(len(ranked) - 1) // 2]


def by_price(price: Price) -> tuple[float, str, str, str]:
    """Order offers by price, ties by name."""
    return price.usd_per_gpu_hour, price.provider, price.instance, price.region
