"""Prices and quotes."""

from __future__ import annotations

import numpy as np
from pydantic import BaseModel, Field

from era_pricing import BidError, Configuration
from era_pricing import Quote as EngineQuote
from era_pricing.arrays import FloatArray, IntArray
from era_pricing.timegrid import HOUR

from .. import models, views
from ..market import Market
from ..market.bids import commitment_of
from .base import ApiHandler, endpoint


class MarketQuery(BaseModel):
    """How far to look ahead."""

    hours: float = Field(24, gt=0, le=24 * 31, description="length of the lists in hours")


class MarketHandler(ApiHandler):
    """GET market"""

    @endpoint("Prices now and for the coming hours", models.Market, query=MarketQuery)
    async def get(self, query: MarketQuery) -> models.Market:
        return await self.run(self._market, query.hours)

    def _market(self, hours: float) -> models.Market:
        market, era = self.services.market, self.services.market.era
        now, slot = market.clock(), era.grid.slot
        first = now - now % slot
        count = max(1, min(int(hours * 3600 // slot), era.grid.horizon // slot))
        return models.Market(
            now=views.when(now),
            pool=market.pool,
            slot=slot,
            first_slot=views.when(first),
            horizon=views.when(era.grid.horizon_end(now)),
            resource=era.resource,
            simulated=self.services.cloud.simulated,
            capacity=era.capacity(first, count).tolist(),
            promised=era.promised(first, count).tolist(),
            configurations=[
                _prices(market, each, first, count, now) for each in market.configurations.values()
            ],
        )


def _prices(
    market: Market, configuration: Configuration, first: int, count: int, now: int
) -> models.ConfigurationPrices:
    era = market.era
    by_slot = era.prices(configuration.name, first, count, now)
    prices = [None if price < 0 else price for price in by_slot.tolist()]
    units = configuration.units(era.resource)
    return models.ConfigurationPrices(
        name=configuration.name,
        title=configuration.title or configuration.name,
        description=configuration.description,
        resources={name: str(each) for name, each in configuration.resources.items()},
        gpus=units,
        price_per_hour=era.hourly_price(configuration.name, now),
        prices=prices,
        forecast=_forecast(market, configuration.name, first, by_slot, now) if units else None,
    )


def _forecast(
    market: Market, configuration: str, first: int, prices: IntArray, now: int
) -> models.PriceForecast:
    """The band of the slots that have a price now."""
    era = market.era
    found = era.forecast(configuration, first, len(prices), now)
    known = (prices >= 0) & np.isfinite(found.expected)

    def amounts(per_hour: FloatArray) -> list[int | None]:
        micro = np.minimum(per_hour * (era.grid.slot / HOUR), models.MAX_CREDITS * models.MICRO)
        return [
            round(price) if there else None
            for price, there in zip(micro.tolist(), known.tolist(), strict=True)
        ]

    return models.PriceForecast(
        expected=amounts(found.expected), low=amounts(found.low), high=amounts(found.high)
    )


class QuotesHandler(ApiHandler):
    """POST quotes"""

    @endpoint(
        "Price of a request at every start",
        models.Quote,
        body=models.QuoteRequest,
        writes=False,
    )
    async def post(self, body: models.QuoteRequest) -> bytes:
        market = self.services.market
        quote = await self.ask(market.quote, body)
        slots = market.era.grid.slots_for(body.duration)
        duration = slots * market.era.grid.slot
        alternative = None
        if not quote.feasible:
            alternative = await self.ask(find_alternative, market, body, quote)
        answer = models.Quote(
            configuration=body.configuration,
            duration=duration,
            feasible=quote.feasible,
            best=best_start(quote),
            starts=[],
            alternative=alternative,
        )
        return _with_starts(answer, quote)


def best_start(quote: EngineQuote) -> models.Start | None:
    """The cheapest start of a quote."""
    if quote.start is None or quote.end is None or quote.price is None:
        return None
    return models.Start(start=views.when(quote.start), end=views.when(quote.end), price=quote.price)


def _with_starts(answer: models.Quote, quote: EngineQuote) -> bytes:
    """The answer as JSON with all its starts, of which there may be thousands.

    A model of each would take longer than to find the prices.
    """
    begins = np.datetime_as_string(quote.starts.astype("M8[s]"))
    ends = np.datetime_as_string((quote.starts + answer.duration).astype("M8[s]"))
    starts = ",".join(
        f'{{"start":"{begin}Z","end":"{end}Z","price":{price}}}'
        for begin, end, price in zip(
            begins.tolist(), ends.tolist(), quote.prices.tolist(), strict=True
        )
    )
    # A quotation mark in a text is written with a backslash, so this is found but once.
    return answer.model_dump_json().replace('"starts":[]', f'"starts":[{starts}]', 1).encode()


def find_alternative(
    market: Market, request: models.RequestBase, quote: EngineQuote
) -> models.Start | None:
    """The cheapest start anywhere ahead, if it helps: cheaper, or the only one there is."""
    horizon = market.era.grid.horizon_end(market.clock())
    wide = request.model_copy(update={"deadline": views.when(horizon)})
    try:
        commitment = commitment_of(request)
        best = best_start(market.quote(models.QuoteRequest(**_common(wide), commitment=commitment)))
    except BidError:
        return None  # nothing fits at any time
    if best is None or (quote.price is not None and best.price >= quote.price):
        return None
    return best


def _common(request: models.RequestBase) -> dict[str, object]:
    return {name: getattr(request, name) for name in models.RequestBase.model_fields}
