"""A dispatcher in a process of its own that stops at a point, tells, and goes on when told to."""

import logging
import os
import time
from collections import Counter
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from sqlalchemy import Connection as Session
from sqlalchemy import Engine, event
from sqlalchemy.exc import OperationalError

from ops_pipeline.clients.alpaca_http import Patience, RateBudget
from ops_pipeline.clients.alpaca_orders import AlpacaOrders
from ops_pipeline.clients.protocols import OrderGateway
from ops_pipeline.dispatcher.brokers import Broker, PaperBroker, SimulatedBroker
from ops_pipeline.dispatcher.orders import Pace
from ops_pipeline.dispatcher.turn import take_turn
from ops_pipeline.domain.orders import BrokerAccount, OrderReport, OrderTicket
from ops_pipeline.proofs.chaos import defects
from ops_pipeline.proofs.chaos.history import CHAOS
from ops_pipeline.proofs.chaos.plan import FIND, SUBMIT, Fault, Moment, Point
from ops_pipeline.proofs.chaos.scene import FROZEN_SECONDS, LEASE_SECONDS, desk_of
from ops_pipeline.settings import AlpacaAccess, Settings
from ops_pipeline.storage.engine import open_engine
from ops_pipeline.storage.knowledge import clock
from ops_pipeline.storage.queries import name_of

PACE = Pace(sending=0.3, asking=0.05, horizon=0.2, asking_denied=0.2, watching_denied=60)
TURNS = 2
UNLIMITED = 1_000_000
HERE, DONE, FAILED = "here", "done", "failed"


@dataclass(frozen=True)
class Task:
    """What a dispatcher works on, and where it stops: at a point, the n-th time.

    Without a point it works through. `fault` is what it does itself when it goes on.
    """

    settings: Settings
    access: AlpacaAccess | None = None
    point: Point | None = None
    occurrence: int = 1
    fault: Fault | None = None
    defect: str = ""
    limit: str = ""
    turns: int = TURNS


def work(mouth: Connection, task: Task) -> None:
    """Take turns; say that the point was reached, wait, go on; at last, say how it ended."""
    # What a hurt dispatcher complains of is what was done to it.
    logging.disable(logging.CRITICAL)
    defects.plant(task.defect)
    engine = open_engine(task.settings)
    stops = _Stops(mouth, task)
    stops.listen(engine)
    try:
        for turn in range(task.turns):
            if turn:
                time.sleep(PACE.asking)
            take_turn(desk_of(engine, _broker(task, stops), task.limit), LEASE_SECONDS)
    except Exception as error:  # noqa: BLE001 - a hurt dispatcher may fail as it likes
        mouth.send((FAILED, type(error).__name__))
    else:
        mouth.send((DONE, ""))
    # Nothing of this process is worth an orderly end, and some of it cannot have one.
    os._exit(0)


def _broker(task: Task, stops: "_Stops") -> Broker:
    if task.access is None:
        return SimulatedBroker()
    patience = Patience(connect=2, read=2, total=2, attempts=1)
    asked = AlpacaOrders(task.access, clock, patience=patience, budget=RateBudget(UNLIMITED))
    return PaperBroker(_Watched(asked, stops), CHAOS, PACE)


class _Stops:
    """Counts the boundaries that are passed, and stops at one of them."""

    def __init__(self, mouth: Connection, task: Task) -> None:
        self._mouth, self._task = mouth, task
        self._passed: Counter[Point] = Counter()
        self._last = ""

    def listen(self, engine: Engine) -> None:
        """Watch every statement and every commit of an engine."""
        event.listen(engine, "before_cursor_execute", self._before_statement)
        event.listen(engine, "after_cursor_execute", self._after_statement)
        event.listen(engine, "commit", self._at_commit)

    def at(self, name: str, moment: Moment, driver: Any = None) -> None:
        """A boundary is passed: stop where this is the one; `driver` has a transaction open."""
        point, task = Point(name, moment), self._task
        self._passed[point] += 1
        if point == task.point and self._passed[point] == task.occurrence:
            if driver and task.fault is Fault.ZOMBIE:
                # Not before: on a busy machine one that works would be ended, too.
                driver.execute(
                    f"set idle_in_transaction_session_timeout = {round(FROZEN_SECONDS * 1_000)}"
                )
            self._mouth.send((HERE, ""))
            self._mouth.recv()

    def _before_statement(self, _: Any, cursor: Any, statement: str, *__: Any) -> None:
        self._last = name_of(statement) or self._last
        self.at(self._last, Moment.BEFORE, cursor.connection)

    def _after_statement(self, _: Any, cursor: Any, *__: Any) -> None:
        self.at(self._last, Moment.AFTER, cursor.connection)

    def _at_commit(self, session: Session) -> None:
        """Before a commit; the commit itself is made here, so that there is a moment after it."""
        name = self._last
        self.at(name, Moment.COMMITTING, session.connection.dbapi_connection)
        task = self._task
        point = Point(name, Moment.COMMITTING)
        driver: Any = session.connection.dbapi_connection
        driver.commit()
        is_struck = point == task.point and self._passed[point] == task.occurrence
        if is_struck and task.fault is Fault.REPLY_LOST:
            raise OperationalError("commit", {}, Exception("the server's word was lost"))
        self.at(name, Moment.COMMITTED)


@dataclass(frozen=True)
class _Watched:
    """A gateway whose requests are boundaries."""

    gateway: OrderGateway
    stops: _Stops

    def account(self) -> BrokerAccount:
        """As the gateway says."""
        return self.gateway.account()

    def submit(self, ticket: OrderTicket) -> OrderReport:
        """As the gateway does."""
        self.stops.at(SUBMIT, Moment.BEFORE)
        report = self.gateway.submit(ticket)
        self.stops.at(SUBMIT, Moment.AFTER)
        return report

    def find(self, client_order_id: str) -> OrderReport | None:
        """As the gateway does."""
        self.stops.at(FIND, Moment.BEFORE)
        found = self.gateway.find(client_order_id)
        self.stops.at(FIND, Moment.AFTER)
        return found
