"""Alerts, what is said of them, and to which channels it went."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import date, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, RowMapping, TextClause

from ops_pipeline.domain import alerts
from ops_pipeline.domain.acceptance import Level, Verdict
from ops_pipeline.domain.alerts import (
    FLAPS_WITHIN,
    Alert,
    Channel,
    Incident,
    Kind,
    Message,
    Quiet,
    Silence,
    message_of,
    retry_at,
    silenced_by,
)
from ops_pipeline.storage.queries import query
from ops_pipeline.storage.services import switches

LEASE = "alerts"
# A sender that says nothing for so long is dead.
CLAIM_SECONDS = 60
CLAIMED_AT_ONCE = 100


@dataclass(frozen=True)
class Delivery:
    """One message that is on its way to one channel, and how often it was tried, with this time."""

    id: int
    channel: str
    attempts: int
    message: Message


@dataclass(frozen=True)
class ChannelState:
    """How a channel is: what it got last, how much waits for it, and what was given up since."""

    channel: str
    last_sent_at: datetime | None
    waiting: int
    gave_up: int
    attempts: int
    last_error: str


@dataclass(frozen=True)
class Told:
    """A message of an alert, and what became of it at a channel; no channel before it is known."""

    kind: str
    level: str
    made_at: datetime
    channel: str | None
    state: str | None
    attempts: int | None
    sent_at: datetime | None
    last_error: str | None


def observe(
    connection: Connection,
    now: datetime,
    source: str,
    verdicts: Sequence[Verdict],
    links: Mapping[str, str] | None = None,
) -> list[Alert]:
    """Open, follow and resolve alerts by verdicts; a cause without a verdict stays as it is.

    What is to be said is written in this transaction, and passed on to channels by the process
    that sends. `links` are paths of the web UI, by cause.

    Returns:
        The alerts of which something is said now.
    """
    causes = [verdict.name for verdict in verdicts]
    connection.execute(query("alerts", "lock_alerts"))
    held = {
        row["cause"]: _alert(row)
        for row in _rows(connection, query("alerts", "lock_open"), causes=causes)
    }
    bad = [v.name for v in verdicts if not v.is_normal and v.name not in held]
    flaps = _flaps(connection, bad, now) if bad else {}
    seen = []
    for verdict in verdicts:
        if verdict.name in held:
            seen.append(alerts.followed(held[verdict.name], verdict, now))
        elif not verdict.is_normal:
            found = alerts.opened(
                source,
                verdict,
                now,
                flaps=flaps.get(verdict.name, 0),
                link=(links or {}).get(verdict.name, ""),
            )
            seen.extend(_inserted(connection, found))
    return _told(connection, seen, now)


def open_alerts(connection: Connection) -> list[Alert]:
    """What is open now, the worst first."""
    return [_alert(row) for row in _rows(connection, query("alerts", "open_alerts"))]


def recent_alerts(connection: Connection, since: datetime | None, limit: int) -> list[Alert]:
    """Those that are open or ended since then, the newest first."""
    return [
        _alert(row)
        for row in _rows(connection, query("alerts", "recent_alerts"), since=since, limit=limit)
    ]


def read_alert(connection: Connection, number: int) -> Alert | None:
    """One alert by its number."""
    return next(
        (_alert(row) for row in _rows(connection, query("alerts", "one_alert"), id=number)), None
    )


def what_was_told(connection: Connection, alert: Alert) -> list[Told]:
    """The messages of an alert, in order, for each channel."""
    rows = _rows(connection, query("alerts", "deliveries_of"), alert_id=alert.id)
    return [Told(**{key: row[key] for key in Told.__dataclass_fields__}) for row in rows]


def insert_message(
    connection: Connection,
    message: Message,
    now: datetime,
    *,
    alert_id: int | None = None,
    session_date: date | None = None,
) -> int | None:
    """Say something; None where it was said already."""
    row = {
        **_text_of(message),
        "kind": message.kind.value,
        "alert_id": alert_id,
        "session_date": session_date,
        "link": message.link,
        "made_at": now,
    }
    number: int | None = connection.execute(query("alerts", "insert_message"), row).scalar()
    return number


def pass_on(
    connection: Connection, now: datetime, channels: Sequence[Channel], quiet: Quiet | None
) -> int:
    """Put what was said on its way to each channel that wants it. Returns how many deliveries."""
    known = [channel.name for channel in channels]
    connection.execute(query("alerts", "drop_unknown"), {"channels": known})
    said = _rows(connection, query("alerts", "new_messages"))
    count = 0
    for row in said:
        level = Level(row["level"])
        at = quiet.held_until(level, now) if quiet else now
        for name in _wanted_by(connection, row, channels, now):
            # Whoever writes the console's log wakes nobody.
            known_at = now if name == alerts.CONSOLE else at
            parameters = {"message_id": row["id"], "channel": name, "next_try_at": known_at}
            count += connection.execute(query("alerts", "insert_delivery"), parameters).rowcount
    connection.execute(query("alerts", "mark_passed_on"), {"ids": [row["id"] for row in said]})
    return count


def claim_deliveries(
    connection: Connection, now: datetime, holder: UUID, channels: Sequence[Channel]
) -> list[Delivery]:
    """Take what is due, in order; what a dead sender took is taken once more, and then given up."""
    connection.execute(query("alerts", "end_unclear"), {"now": now})
    rows = _rows(
        connection,
        query("alerts", "claim_deliveries"),
        now=now,
        holder=holder,
        seconds=CLAIM_SECONDS,
        channels=[channel.name for channel in channels],
        limit=CLAIMED_AT_ONCE,
    )
    found = [(row["message_id"], row["id"], _delivery(row)) for row in rows]
    return [delivery for _, _, delivery in sorted(found, key=lambda one: one[:2])]


def mark_delivery(
    connection: Connection, delivery: Delivery, now: datetime, holder: UUID, error: str | None
) -> None:
    """Keep how an attempt ended; a failed one is tried again, later and later, and given up."""
    again = retry_at(delivery.attempts, now) if error is not None else None
    row = {
        "id": delivery.id,
        "holder": holder,
        "state": "SENT" if error is None else "WAITING" if again else "GAVE_UP",
        "error": error or "",
        "sent_at": now if error is None else None,
        # Or when it was given up: what goes through afterwards shows that the channel works.
        "next_try_at": again or now,
    }
    connection.execute(query("alerts", "mark_delivery"), row)


def insert_told(
    connection: Connection, message_id: int, now: datetime, results: Mapping[str, str | None]
) -> None:
    """Keep that channels were told of a message without waiting for it: each with its error."""
    for channel, error in results.items():
        row = {
            "message_id": message_id,
            "channel": channel,
            "state": "SENT" if error is None else "GAVE_UP",
            "now": now,
            "sent_at": now if error is None else None,
            "error": error or "",
        }
        connection.execute(query("alerts", "insert_told"), row)


def opened_message(connection: Connection, alert: Alert) -> int | None:
    """The number of what was said when an alert opened; None where nothing was."""
    about = {"alert_id": alert.id}
    number: int | None = connection.execute(query("alerts", "opened_message"), about).scalar()
    return number


def insert_test(
    connection: Connection, message: Message, now: datetime, results: Mapping[str, str | None]
) -> None:
    """Keep a test that was sent already, and what came of it at each channel."""
    number = insert_message(connection, message, now)
    if number:
        connection.execute(query("alerts", "mark_passed_on"), {"ids": [number]})
        insert_told(connection, number, now, results)


def channel_states(connection: Connection) -> list[ChannelState]:
    """How each channel is to which something was to go."""
    return [ChannelState(**row) for row in _rows(connection, query("alerts", "channel_states"))]


def silences(connection: Connection, now: datetime) -> list[Silence]:
    """What nobody is told of now."""
    return [Silence(**row) for row in _rows(connection, query("alerts", "silences"), now=now)]


def silence(connection: Connection, wanted: Silence) -> None:
    """Say nothing of a cause until then; one that was silenced already is silenced anew."""
    connection.execute(query("alerts", "upsert_silence"), asdict(wanted))


def unsilence(connection: Connection, cause: str) -> bool:
    """Say all of it again; False where nothing was silenced by these words."""
    return connection.execute(query("alerts", "delete_silence"), {"cause": cause}).rowcount == 1


def opened_between(
    connection: Connection, start: datetime, end: datetime
) -> list[tuple[str, int, int]]:
    """The level, how many alerts opened, and how many of these are open still; the worst first."""
    rows = connection.execute(query("alerts", "opened_between"), {"start": start, "end": end})
    return [(row[0], row[1], row[2]) for row in rows]


def has_summary(connection: Connection, session_date: date) -> bool:
    """Whether a session was summed up already."""
    asked = query("alerts", "has_summary")
    return bool(connection.execute(asked, {"session_date": session_date}).scalar_one())


def _told(connection: Connection, seen: Sequence[Alert], now: datetime) -> list[Alert]:
    """Say what is due of these, and keep them."""
    reasons = _suppressions(connection, seen, now) if seen else {}
    known = {one.id: replace(one, suppressed_by=reasons[one.cause]) for one in seen}
    told: list[Alert] = []
    for number in [one.id for one in seen]:
        alert = known[number]
        kind = _due(connection, alert, now)
        if kind in (Kind.OPENED, Kind.RAISED):
            alert, lead = _say(connection, alert, kind, now)
            if lead and lead.id in known:
                known[lead.id] = replace(known[lead.id], told_level=lead.told_level)
        known[number] = alert
        connection.execute(query("alerts", "update_alert"), asdict(alert))
        if kind:
            told.append(alert)
    if any(one.resolved_at for one in seen):
        _end_incidents(connection, now)
    return told


def _text_of(message: Message) -> dict[str, str]:
    return {"level": message.level.value, "title": message.title, "body": message.body}


def _due(connection: Connection, alert: Alert, now: datetime) -> Kind | None:
    """What is to be said; of what is open still after its incident, that it is one of its own."""
    kind = alerts.due(alert)
    is_late = now - alert.opened_at > alerts.SETTLING and not alert.is_aftermath
    if kind or alert.resolved_at or alert.incident_id is None or not is_late:
        return kind
    leads = {one.lead.id for one in _incidents(connection, now) if not one.lead.over_at}
    return None if alert.incident_id in leads or alert.suppressed_by else Kind.OPENED


def _say(
    connection: Connection, alert: Alert, kind: Kind, now: datetime
) -> tuple[Alert, Alert | None]:
    """Say that an alert opened or grew worse, by its incident if it is part of one.

    Returns:
        The alert, and the one that its incident is told by.
    """
    incidents = _incidents(connection, now)
    own = next((one for one in incidents if one.lead.id in (alert.id, alert.incident_id)), None)
    told = replace(alert, told_level=alert.level)
    if own and own.lead.id == alert.id:
        said = message_of(alert, kind, now, own.members)
        insert_message(connection, said, now, alert_id=alert.id)
        return told, None
    is_left = alert.incident_id is not None and kind is Kind.OPENED
    joinable = [] if is_left else [own] if own else incidents
    found = alerts.incident_of(alert, joinable, now)
    if found is None:
        said = message_of(alert, Kind.OPENED, now)
        insert_message(connection, said, now, alert_id=alert.id)
        return replace(told, incident_id=None), None
    return replace(told, incident_id=found.lead.id), _join(connection, alert, found, now)


def _join(connection: Connection, alert: Alert, found: Incident, now: datetime) -> Alert:
    """Tell of an incident what one more alert makes of it: nothing, unless that is worse.

    What was said of it and is not passed on yet is written anew. Returns the alert it is told by.
    """
    lead = found.lead
    members = [*(one for one in found.members if one.id != alert.id), alert]
    is_worse = alerts.is_worse(alert.level, lead.told_level)
    # What opened it may be a symptom alone, or less bad than what is told of it by now.
    told = alert.level if is_worse else lead.told_level
    faces = [one for one in (lead, *members) if not alerts.is_worse(told, one.level)] or [lead]
    face = next((one for one in faces if one.is_root), faces[0])
    amended = _text_of(message_of(face, Kind.OPENED, now, members)) | {"alert_id": lead.id}
    if connection.execute(query("alerts", "amend_message"), amended).rowcount == 0:
        if is_worse:
            said = message_of(alert, Kind.RAISED, now, members)
            insert_message(connection, said, now, alert_id=lead.id)
        elif alert.is_root:
            said = message_of(alert, Kind.OPENED, now, members)
            insert_message(connection, said, now, alert_id=alert.id)
    if is_worse:
        lead = replace(lead, told_level=alert.level)
        connection.execute(query("alerts", "update_alert"), asdict(lead))
    return lead


def _end_incidents(connection: Connection, now: datetime) -> None:
    """Say of each incident once that it is over."""
    for one in _incidents(connection, now):
        if one.lead.over_at or not one.is_over:
            continue
        said = message_of(
            replace(one.lead, level=one.lead.told_level), Kind.RESOLVED, now, one.everything
        )
        insert_message(connection, said, now, alert_id=one.lead.id)
        ended = replace(one.lead, over_at=now)
        connection.execute(query("alerts", "update_alert"), asdict(ended))


def _incidents(connection: Connection, now: datetime) -> list[Incident]:
    """What was told and is not over, or was over lately, with all that joined it."""
    since = now - alerts.AFTERMATH_SEEN
    found = [_alert(row) for row in _rows(connection, query("alerts", "incidents"), since=since)]
    return [
        Incident(lead, [one for one in found if lead.id in (one.id, one.incident_id)])
        for lead in found
        if lead.incident_id is None
    ]


def _suppressions(connection: Connection, seen: Sequence[Alert], now: datetime) -> dict[str, str]:
    off = {one.stage.service: one for one in switches(connection, now) if not one.is_enabled}
    unwanted = silences(connection, now)
    return {
        alert.cause: f"service {alert.service} is off"
        if alert.service in off
        else silenced_by(alert.cause, unwanted)
        for alert in seen
    }


def _wanted_by(
    connection: Connection, row: RowMapping, channels: Sequence[Channel], now: datetime
) -> list[str]:
    about = {"alert_id": row["alert_id"]}
    if row["kind"] == Kind.RAISED:
        # Or what is worse now would wait behind it.
        _drop_held(connection, row["alert_id"], now, "it grew worse before the quiet hours ended")
    if row["kind"] != Kind.RESOLVED:
        return [channel.name for channel in channels if channel.wants(Level(row["level"]))]
    _drop_held(connection, row["alert_id"], now, "over before the quiet hours were")
    told: set[str] = set(connection.execute(query("alerts", "told_channels"), about).scalars())
    return [channel.name for channel in channels if channel.name in told]


def _drop_held(connection: Connection, alert_id: int, now: datetime, reason: str) -> None:
    held = {"alert_id": alert_id, "now": now, "reason": reason}
    connection.execute(query("alerts", "drop_held"), held)


def _inserted(connection: Connection, alert: Alert) -> list[Alert]:
    number = connection.execute(query("alerts", "insert_alert"), asdict(alert)).scalar()
    return [replace(alert, id=number)] if number else []


def _flaps(connection: Connection, causes: Sequence[str], now: datetime) -> dict[str, int]:
    rows = _rows(
        connection, query("alerts", "count_flaps"), causes=list(causes), since=now - FLAPS_WITHIN
    )
    return {row["cause"]: row["flaps"] for row in rows}


def _rows(connection: Connection, asked: TextClause, **parameters: Any) -> Sequence[RowMapping]:
    return connection.execute(asked, parameters).mappings().all()


def _alert(row: RowMapping) -> Alert:
    known = {key: row[key] for key in Alert.__dataclass_fields__}
    for key in ("level", "told_level"):
        known[key] = Level(known[key])
    return Alert(**known)


def _delivery(row: RowMapping) -> Delivery:
    said = Message(
        Kind(row["kind"]),
        Level(row["level"]),
        row["title"],
        row["body"],
        row["link"],
        row["message_id"],
    )
    return Delivery(row["id"], row["channel"], row["attempts"], said)
