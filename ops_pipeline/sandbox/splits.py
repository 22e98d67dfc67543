"""Corporate actions: the splits that someone put into the sandbox."""

from collections.abc import Iterable, Mapping
from datetime import date
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from pydantic import BaseModel, ConfigDict, Field

_CUSIP = "000000000"


class Split(BaseModel):
    """Of `old_rate` shares `new_rate` are made, from the morning of `ex_date` on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    symbol: str
    new_rate: float = Field(gt=0)
    old_rate: float = Field(1.0, gt=0)
    ex_date: date

    @property
    def kind(self) -> str:
        """forward_split where shares become more, else reverse_split."""
        return "forward_split" if self.new_rate > self.old_rate else "reverse_split"

    def answer(self) -> dict[str, Any]:
        """The split as the vendor tells it."""
        forward = self.kind == "forward_split"
        cusips = {"cusip": _CUSIP} if forward else {"old_cusip": _CUSIP, "new_cusip": _CUSIP}
        told = self.model_dump(mode="json")
        identity = str(uuid5(NAMESPACE_URL, f"{self.symbol}/{self.ex_date}/{self.new_rate}"))
        return {"id": identity, **told, **cusips, "process_date": told["ex_date"]}


def answer_of(splits: Iterable[Split], params: Mapping[str, str]) -> dict[str, Any]:
    """The splits that a request asks for: by symbols, types, start and end (of the ex-date)."""
    symbols, types = (set(filter(None, params.get(n, "").split(","))) for n in ("symbols", "types"))
    start, end = params.get("start", ""), params.get("end", "9999")
    found: dict[str, list[dict[str, Any]]] = {}
    for split in splits:
        is_asked = (not symbols or split.symbol in symbols) and (not types or split.kind in types)
        if is_asked and start <= split.ex_date.isoformat() <= end:
            found.setdefault(f"{split.kind}s", []).append(split.answer())
    return {"corporate_actions": found, "next_page_token": None}
