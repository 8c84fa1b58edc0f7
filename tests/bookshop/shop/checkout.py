"""What a visitor pays."""

from cache_memoize import cache_memoize
from shop.clock import CLOCK


@cache_memoize(3600, cache_alias="prices", _clock=CLOCK)
async def exchange_rate(currency):
    """From the bank, which takes its time."""
    CLOCK.tick(0.75)
    return len(currency)


@cache_memoize(60, cache_alias="prices", _clock=CLOCK)
def stock(product_id):
    CLOCK.tick(0.03)
    return product_id % 7


@cache_memoize(900, depends_on="auth.Group", _clock=CLOCK)
def discount(group_id):
    """Of the customers in a group."""
    CLOCK.tick(0.09)
    return 5 * group_id


class Carrier:
    @cache_memoize(1800, ignore=("self",), _clock=CLOCK)
    def quote(self, country, grams):
        """What it costs to send a parcel."""
        CLOCK.tick(0.26)
        return grams // 100
