"""Splits of stocks, as Alpaca announces them."""

from collections.abc import Callable, Sequence
from datetime import date, datetime

from alpaca.common.exceptions import APIError
from alpaca.data.enums import CorporateActionsType
from alpaca.data.historical.corporate_actions import CorporateActionsClient
from alpaca.data.models.corporate_actions import CorporateActionsSet, ForwardSplit, ReverseSplit
from alpaca.data.requests import CorporateActionsRequest

from ops_pipeline.clients.alpaca_bars import CHUNK
from ops_pipeline.clients.alpaca_http import Patience, PatientAdapter, RateBudget, patient, refusal
from ops_pipeline.settings import AlpacaAccess

TYPES = [CorporateActionsType.FORWARD_SPLIT, CorporateActionsType.REVERSE_SPLIT]


class AlpacaSplits:
    """Source of splits."""

    def __init__(self, access: AlpacaAccess, now: Callable[[], datetime]) -> None:
        self._access, self._now = access, now

    def fetch_splits(self, tickers: Sequence[str], day: date) -> dict[str, float]:
        """How many shares one share becomes on a day, for those of these tickers that are split.

        Raises:
            OperatorError: Alpaca does not answer, or refuses the key.
        """
        access = self._access
        client = CorporateActionsClient(access.key, access.secret, url_override=access.data_url)
        found: dict[str, float] = {}
        with patient(client, PatientAdapter(Patience(), RateBudget(), self._now)):
            for first in range(0, len(tickers), CHUNK):
                request = CorporateActionsRequest(
                    symbols=list(tickers[first : first + CHUNK]), types=TYPES, start=day, end=day
                )
                try:
                    answer = client.get_corporate_actions(request)
                except APIError as error:
                    raise refusal(error, access) from None
                assert isinstance(answer, CorporateActionsSet)  # noqa: S101 - not asked for raw
                found |= _ratios(answer)
        return found


def _ratios(answer: CorporateActionsSet) -> dict[str, float]:
    return {
        action.symbol: action.new_rate / action.old_rate
        for actions in answer.data.values()
        for action in actions
        if isinstance(action, ForwardSplit | ReverseSplit)
    }
