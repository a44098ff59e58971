"""Money of one currency told in another, by a dated rate; what it was stays beside it."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal

from rmn.lib.errors import BadInput

STALEST = timedelta(days=7)  # a Friday's rate holds over the weekend and a holiday
PLACES = Decimal("0.000001")


class NoRate(BadInput):
    """Nobody has said what the one currency was worth in the other on that day."""


@dataclass(frozen=True)
class Rate:
    """One unit of ``base`` was worth ``rate`` of ``quote`` on ``day``, says ``source``."""

    base: str
    quote: str
    day: date
    rate: Decimal
    source: str


@dataclass(frozen=True)
class Converted:
    """An amount in another currency, with what it was and the rate that made it (None where it was that currency)."""

    amount: Decimal
    was: Decimal
    currency: str
    rate: Rate | None


class Rates:
    """Dated rates, ready to be asked.

    A day takes the newest rate on or before it that is at most a week old, a direct one before an inverse
    one; of two sources on one day the first by name. No third currency comes between.
    """

    def __init__(self, rates: Iterable[Rate]) -> None:
        pairs: dict[tuple[str, str], dict[date, Rate]] = defaultdict(dict)
        for rate in sorted(rates, key=lambda one: one.source, reverse=True):
            pairs[rate.base, rate.quote][rate.day] = rate
        self._pairs = {pair: (sorted(known), known) for pair, known in pairs.items()}

    def _at(self, base: str, quote: str, day: date) -> Rate | None:
        days, known = self._pairs.get((base, quote), ([], {}))
        place = bisect_right(days, day)
        return known[days[place - 1]] if place and day - days[place - 1] <= STALEST else None

    def convert(self, amount: Decimal, currency: str, to: str, day: date) -> Converted:
        """``amount`` of ``currency`` in ``to`` at the rate of ``day``, to six places.

        Raises:
            NoRate: names the pair and the day.
        """
        if currency == to:
            return Converted(amount, amount, currency, None)
        if rate := self._at(currency, to, day):
            return Converted((amount * rate.rate).quantize(PLACES), amount, currency, rate)
        if rate := self._at(to, currency, day):
            return Converted((amount / rate.rate).quantize(PLACES), amount, currency, rate)
        raise NoRate(
            f"no exchange rate of {currency or 'an unstated currency'} to {to} for {day}, nor in the {STALEST.days} days before;"
            " enter one in the console under exchange rates"
        )
