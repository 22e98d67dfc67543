"""The account as Alpaca tells of it; read only."""

from collections.abc import Callable
from datetime import datetime

from alpaca.common.exceptions import APIError
from alpaca.trading.client import TradingClient
from alpaca.trading.models import Clock

from ops_pipeline.clients.alpaca_http import Patience, PatientAdapter, RateBudget, patient, refusal
from ops_pipeline.settings import AlpacaAccess

# A clock that is further off makes every age wrong.
MAX_SKEW_SECONDS = 2.0


def clock_skew_seconds(access: AlpacaAccess, now: Callable[[], datetime]) -> float:
    """How far the broker's clock is ahead of ours, to about half of a request's time.

    Raises:
        OperatorError: Alpaca does not answer, or refuses the key.
    """
    client = TradingClient(access.key, access.secret, url_override=access.trading_url)
    with patient(client, PatientAdapter(Patience(), RateBudget(), now)):
        before = now()
        try:
            told = client.get_clock()
        except APIError as error:
            raise refusal(error, access) from None
        after = now()
    assert isinstance(told, Clock)  # noqa: S101 - raw answers were not asked for
    return (told.timestamp - before - (after - before) / 2).total_seconds()
