"""The reference price: one vote per provider, recent offers, a real offer."""

from __future__ import annotations

from planner.catalog import Price, load_hardware
from planner.catalog.prices import reference_price


def offer(provider: str, usd: float, **changes: object) -> Price:
    values: dict[str, object] = {
        "provider": provider, "instance": f"{provider}-{usd}", "accelerator": "x", "gpus": 8,
        "term": "on-demand",
        "usd_per_gpu_hour": usd, "region": "", "date": "2026", "source": "test",
    }  # fmt: skip
    return Price(**(values | changes))  # type: ignore[arg-type]


def chosen(*offers: Price, term: str = "on-demand") -> float | None:
    price = reference_price(offers, term)
    return price.usd_per_gpu_hour if price else None


def test_each_provider_votes_once_with_its_cheapest_offer() -> None:
    """Nine dear instances of one provider do not outvote two cheap providers: median of 2, 3, 10 is 3."""
    dear = [offer("big", 10 + i) for i in range(9)]
    assert chosen(*dear, offer("a", 2), offer("b", 3)) == 3


def test_an_even_number_of_providers_gives_the_lower_median_a_real_offer() -> None:
    assert chosen(offer("a", 2), offer("b", 4)) == 2


def test_old_offers_do_not_count_beside_new_ones() -> None:
    assert chosen(offer("a", 9, date="2023-01"), offer("b", 4), offer("c", 5, date="2025-12-31")) == 4
    assert chosen(offer("a", 9, date="2023-01")) == 9


def test_without_an_offer_for_the_term_there_is_no_price() -> None:
    assert chosen(offer("a", 2), term="spot") is None


def test_order_of_offers_does_not_matter() -> None:
    offers = [offer("a", 2), offer("b", 2), offer("c", 7), offer("a", 1)]
    assert reference_price(offers, "on-demand") == reference_price(offers[::-1], "on-demand")


def test_prices_of_an_accelerator_come_cheapest_first() -> None:
    catalog = load_hardware()
    prices = [price.usd_per_gpu_hour for price in catalog.prices_for("H100")]
    assert prices == sorted(prices) and len(prices) > 10
    cheapest, reference = catalog.cheapest_price("H100"), catalog.reference_price("H100")
    assert cheapest is not None and reference is not None
    assert cheapest.usd_per_gpu_hour <= reference.usd_per_gpu_hour
    assert catalog.reference_price("arc-pro-b60") is None
