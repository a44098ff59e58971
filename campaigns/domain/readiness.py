"""Whether what an arm advertises can be bought: readings of stock, buy box and price become one share of the time.

A product's share is its stock times its buy box, each the mean of the last week's readings, times how far its price lies
above its usual one (``usual / price``, as if demand had an elasticity of one; cheaper than usual counts as usual). A
product whose newest reading says nothing is in stock has 0, whatever the week was like. An arm's share is its products'
mean, weighted by what was spent on each. What has no reading is taken to be there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from statistics import fmean, median

WEEK = timedelta(days=7)
USUAL = timedelta(days=28)  # how far back a usual price is looked for
STALE = timedelta(days=14)  # a reading older than this says nothing about the days to come
DEAR = 1.02  # a price up to this times the usual one is the usual one


@dataclass(frozen=True)
class Reading:
    """What a feed says of one product on one day; None where it does not say."""

    day: date
    in_stock: float | None = None  # share of the day
    buy_box: float | None = None  # share of the day
    price: float | None = None


@dataclass(frozen=True)
class Ready:
    """How much of the time something can be bought, why not always, and how old that is."""

    share: float
    why: str
    read: date  # the newest day read
    stale: bool = False  # too old to act on: the share is 1


def product(readings: Sequence[Reading], day: date) -> Ready | None:
    """One product on a day, from its readings up to it; None where there are none."""
    told = sorted((one for one in readings if one.day <= day), key=lambda one: one.day)
    if not told:
        return None
    read = told[-1].day
    if day - read > STALE:
        return Ready(1.0, "last read too long ago to act on", read, stale=True)
    share, words = 1.0, []
    stock = [(one.day, one.in_stock) for one in told if one.in_stock is not None]
    if stock and stock[-1][1] <= 0:
        since = stock[-1][0]
        for when, value in reversed(stock):
            if value > 0:
                break
            since = when
        return Ready(0.0, f"out of stock since {since}", read)
    for values, name in (
        (stock, "in stock"),
        ([(one.day, one.buy_box) for one in told if one.buy_box is not None], "buy box"),
    ):
        recent = [value for when, value in values if when > read - WEEK]
        if recent and fmean(recent) < 1.0:
            share *= fmean(recent)
            words.append(f"{name} {fmean(recent):.0%}")
    prices = [(one.day, one.price) for one in told if one.price]
    if len(prices) > 1:
        usual = median(price for when, price in prices if when > read - USUAL)
        if prices[-1][1] > DEAR * usual:
            share *= usual / prices[-1][1]
            words.append(f"price {prices[-1][1] / usual - 1:.0%} above usual")
    return Ready(share, ", ".join(words), read)


def arm(products: Mapping[str, float], found: Mapping[str, Ready]) -> Ready | None:
    """One arm from its products.

    Args:
        products: what was spent on each product that it advertises (0 for all: each counts the same).
        found: by product, where it was read.

    Returns:
        None where none of them was read.
    """
    known = [one for one in products if one in found]
    if not known:
        return None
    read = max(found[one].read for one in known)
    if all(found[one].stale for one in known):
        return Ready(1.0, "last read too long ago to act on", read, stale=True)
    total = sum(products.values())
    weights = {one: money / total if total > 0 else 1 / len(products) for one, money in products.items()}
    share = sum(weights[one] * (found[one].share if one in found else 1.0) for one in products)
    held = sorted((one for one in known if found[one].share < 1.0), key=lambda one: found[one].share)
    if not held:
        return Ready(1.0, "", read)
    if len(products) == 1:
        return Ready(share, found[held[0]].why, read)
    worst = "; ".join(f"{one}: {found[one].why}" for one in held[:3])
    more = f"; {len(held) - 3} more" if len(held) > 3 else ""
    return Ready(share if share > 1e-12 else 0.0, f"{len(held)} of {len(products)} products: {worst}{more}", read)
