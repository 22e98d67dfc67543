"""What the rows of each check's query mean at a present: one function for each check."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from math import isinf
from typing import Any

from ops_pipeline.domain import cost, ranges
from ops_pipeline.domain.acceptance import Level, Row
from ops_pipeline.domain.bars import FRESH_SECONDS
from ops_pipeline.domain.features import MAX_BAR_AGE_MINUTES
from ops_pipeline.domain.ranges import Present
from ops_pipeline.domain.sentiment import linked_verdict, scored_verdict
from ops_pipeline.domain.session import MINUTE, both_zones

CLOSED = "the market is closed"
NO_NEWS = "the recording has no news of this session"
Rows = Sequence[Row]


@dataclass(frozen=True)
class Found:
    """How bad it is, what was found, what it is judged by, and what was expected."""

    level: Level
    finding: str
    observed: dict[str, Any] = field(default_factory=dict)
    expected: str = ""


def unmeasured(why: str, observed: dict[str, Any], expected: str) -> Found:
    """Say that there is nothing to judge by, and why."""
    return Found(Level.UNMEASURED, f"not measured yet: {why}", observed, expected)


def backlog_state(present: Present, rows: Rows) -> Found:
    """Query 1: few PENDING rows. What is PROCESSING is a run at work, or query 2's to find."""
    counts = {str(row["status"]): int(row["count"]) for row in rows}
    pending, processing = counts.get("PENDING", 0), counts.get("PROCESSING", 0)
    limit = present.at_most(ranges.PENDING_MAX)
    level = Level.HIGH if pending > limit else Level.NORMAL
    found = f"{pending} PENDING, {processing or 'none'} PROCESSING"
    return Found(level, found, counts, f"PENDING 0-{limit}")


def stuck_processing(present: Present, rows: Rows) -> Found:
    """Query 2: nothing has been PROCESSING for more than ten minutes."""
    count = int(rows[0]["count"]) if rows else 0
    level = Level.HIGH if count else Level.NORMAL
    return Found(level, f"{count} stuck", {"count": count}, "0")


def duplicate_executions(present: Present, rows: Rows) -> Found:
    """Query 3: no recommendation was executed twice."""
    level = Level.CRITICAL if rows else Level.NORMAL
    observed = {"recommendation_ids": sorted(int(row["recommendation_id"]) for row in rows)}
    return Found(level, f"{len(rows)} executed twice", observed, "no rows")


def recent_dispatcher_runs(present: Present, rows: Rows) -> Found:
    """Query 4: the last runs have finished, and in trading hours one of them is recent."""
    dead = timedelta(seconds=ranges.RUN_SECONDS)
    unfinished = sum(
        row["finished_at"] is None and present.now - row["started_at"] > dead for row in rows
    )
    newest = max((row["started_at"] for row in rows), default=None)
    seconds = max((_seconds(row) for row in rows), default=0.0)
    observed = {"runs": len(rows), "unfinished": unfinished, "longest_seconds": seconds}
    expected = f"all finished, one in the last {ranges.RUN_AGE_MINUTES} min while open"
    found = f"{len(rows)} runs, {unfinished} unfinished"
    if unfinished:
        return Found(Level.HIGH, found, observed, expected)
    since = max(newest or present.expected_since, present.expected_since)
    is_old = present.now - since > timedelta(minutes=ranges.RUN_AGE_MINUTES)
    if present.is_open and is_old:
        return Found(Level.HIGH, "no recent run", observed, expected)
    if not rows:
        return unmeasured("the dispatcher has not run", observed, expected)
    return Found(Level.NORMAL, found, observed, expected)


def _seconds(row: Row) -> float:
    finished = row["finished_at"]
    return float((finished - row["started_at"]).total_seconds()) if finished else 0.0


def execution_volume(present: Present, rows: Rows, since: Rows) -> Found:
    """Query 5: neither a runaway nor a stall; one trading day must have passed for the latter."""
    today = int(rows[0]["count"]) if rows else 0
    runaway = present.at_most(ranges.EXECUTIONS_RUNAWAY)
    last = since[0]["count"] if since[0]["is_old_enough"] else None
    observed = {"today": today, "since_the_session_before": last}
    expected = f"0-{present.at_most(ranges.EXECUTIONS_MAX)} a day, not 0 for 24 h"
    if today > runaway:
        return Found(Level.HIGH, f"{today} today: runaway", observed, expected)
    if not today and last == 0:
        return Found(Level.MEDIUM, "none for 24 h: stall", observed, expected)
    return Found(Level.NORMAL, f"{today} today", observed, expected)


def skip_reasons(present: Present, rows: Rows) -> Found:
    """Of what was decided in the last hour something trades, or has done so in this session."""
    row = rows[0]
    skipped, executed = int(row["skipped"]), int(row["executed"])
    observed = {"skipped": skipped, "executed_in_session": executed, "reason": row["reason"]}
    expected = f"an execution in the session, or fewer than {ranges.SKIPPED_MIN} skips in an hour"
    found = f"{skipped} skipped in an hour, {executed} executed in the session"
    begun_at = row["begun_at"]
    is_long = begun_at is not None and present.now - begun_at >= ranges.SKIPPED_FOR
    if present.is_open and is_long and not executed and skipped >= ranges.SKIPPED_MIN:
        return Found(Level.MEDIUM, f"{found}: mostly {row['reason']}", observed, expected)
    return Found(Level.NORMAL, found, observed, expected)


def execution_freshness(present: Present, rows: Rows, opening: Rows) -> Found:
    """No order of the last hour was opened on an old bar; without its bar it counts as old."""
    limit = ranges.BAR_AGE_SECONDS
    ages = {str(row["ticker"]): row["age_sec"] for row in opening}
    old = [name for name, age in ages.items() if age is None or age > limit]
    oldest = max((float(age) for age in ages.values() if age is not None), default=0.0)
    level = Level.HIGH if old else Level.NORMAL
    found = f"oldest bar {oldest:.0f} s" if rows else "no execution in the last hour"
    if old:
        found += f": {', '.join(old)}"
    return Found(level, found, {"old": old, "oldest_seconds": oldest}, f"<= {limit} s")


def services_are_running(present: Present, rows: Rows) -> Found:
    """Each service that is on has finished a minute lately; CRITICAL where none of them has."""
    limit = ranges.SERVICE_SECONDS
    expected = f"a finished minute within {limit} s of its end, each service that is on"
    if not present.is_watched:
        return Found(Level.NORMAL, CLOSED, {}, expected)
    awaited = (present.now - present.expected_since).total_seconds()
    seconds = {
        str(row["service"]): round(min(float(row["seconds"]), awaited), 1)
        for row in rows
        if row["service"] not in present.off
    }
    late = {service: lag for service, lag in seconds.items() if lag > limit}
    if not late:
        # What it waited for so far was not due: it has not shown that it runs.
        unseen = sum(lag == round(awaited, 1) for lag in seconds.values())
        off = len(rows) - len(seconds)
        found = f"{len(seconds) - unseen} run"
        found += f", {unseen} have finished no minute yet" if unseen else ""
        found += f", {off} off" if off else ""
        if unseen and unseen == len(seconds):
            return unmeasured("no service has finished a minute", seconds, expected)
        return Found(Level.NORMAL, found, seconds, expected)
    is_all = len(late) == len(seconds) > 1
    named = ", ".join(f"{service} for {lag:.0f} s" for service, lag in late.items())
    found = f"{'no service runs' if is_all else 'silent'}: {named}"
    return Found(Level.CRITICAL if is_all else Level.HIGH, found, seconds, expected)


def cost_per_day(present: Present, rows: Rows) -> Found:
    """The newest day that was measured would cost no more on AWS than it should."""
    normal, critical = cost.limits(present.minutes, ranges.RUNBOOK_MINUTES)
    expected = f"<= {normal:.2f} USD, at worst {critical:.2f} USD"
    if not rows:
        return unmeasured("no day is over", {}, expected)
    usd = float(rows[0]["usd"])
    level = cost.level_of(usd, normal, critical)
    found = f"{rows[0]['day']} would cost {usd:.2f} USD on AWS"
    return Found(level, found, {"usd": round(usd, 4)}, expected)


def config_drift(present: Present, rows: Rows) -> Found:
    """The newest version of the settings runs, and all that is set can be used."""
    expected = "the newest version runs"
    row = rows[0]
    observed = {"newest": row["version"], "ran": row["ran"]}
    late = float(row["overdue_seconds"] or 0)
    if row["invalid"]:
        return Found(Level.HIGH, f"the dispatcher stands: {row['invalid']}", observed, expected)
    if row["has_had_time"] and row["ran"] != row["version"]:
        found = f"version {row['ran'] or '-'} ran last, and {row['version']} is the newest"
        return Found(Level.MEDIUM, found, observed, expected)
    if late > ranges.SETTINGS_SECONDS:
        found = f"what was set for a time should have ended {late:.0f} s ago"
        return Found(Level.MEDIUM, found, observed, expected)
    if row["unread"]:
        return Found(Level.LOW, f"what is known holds: {row['unread']}", observed, expected)
    found = f"version {row['version']}" if row["version"] else "no version yet"
    return Found(Level.NORMAL, found, observed, expected)


def bars_are_fresh(present: Present, rows: Rows) -> Found:
    """What counts is the age of the data, never that something ran."""
    limit = FRESH_SECONDS
    expected = f"the newest bar ended at most {limit} s ago"
    if not present.is_open:
        return Found(Level.NORMAL, CLOSED, {"limit_seconds": limit}, expected)
    awaited = (present.now - present.expected_since).total_seconds()
    newest = float(rows[0]["seconds"])
    age = min(newest, awaited)
    level = Level.HIGH if age > limit else Level.NORMAL
    observed = {"limit_seconds": limit, "age_seconds": age}
    found = f"the newest bar ended {age:.0f} s ago"
    if isinf(newest):
        found = f"no bar of this session, expected for {age:.0f} s"
        if level is Level.NORMAL:
            return unmeasured(found, observed, expected)
    return Found(level, found, observed, expected)


def bar_volume(present: Present, rows: Rows) -> Found:
    """Of each tracked ticker and finished minute of the session there is a bar, mostly."""
    minutes, bars = int(rows[0]["minutes"]), int(rows[0]["bars"])
    possible = minutes * present.tickers
    observed = {"minutes": minutes, "bars": bars, "possible": possible}
    expected = f">= {ranges.BARS_SHARE:.0%} of tickers x minutes"
    if not possible:
        return unmeasured(_no_minute(present), observed, expected)
    if minutes < ranges.BARS_MINUTES:
        known = f"{bars} of {possible} bars in {minutes} of {ranges.BARS_MINUTES} minutes"
        return unmeasured(known, observed, expected)
    is_low = bars / possible < ranges.BARS_SHARE
    found = f"{bars} of {possible} bars in {minutes} minutes"
    return Found(Level.MEDIUM if is_low else Level.NORMAL, found, observed, expected)


def _no_minute(present: Present) -> str:
    return f"no minute was finished since {both_zones(present.expected_since)}"


def feature_completeness(present: Present, rows: Rows) -> Found:
    """Each ticker with enough current bars has a row in each minute that was finished lately."""
    expected, rows_there = int(rows[0]["expected"]), int(rows[0]["found"])
    incomplete = list(rows[0]["incomplete"] or ())
    level = Level.MEDIUM if rows_there < expected else Level.NORMAL
    observed = {"expected": expected, "found": rows_there, "incomplete": incomplete}
    if not expected:
        why = f"no ticker had its 50 bars in the last {ranges.FEATURES_MINUTES} minutes"
        return unmeasured(why, observed, "one row for each ticker and minute")
    found = f"{rows_there} of {expected} rows in {ranges.FEATURES_MINUTES} minutes"
    if incomplete:
        found += f"; incomplete: {_listed(incomplete)}"
    return Found(level, found, observed, "one row for each ticker and minute")


def tickers_have_bars(present: Present, rows: Rows) -> Found:
    """Each tracked ticker has bars while others do; without, its features stop."""
    limit = MAX_BAR_AGE_MINUTES * MINUTE
    expected = f"of each ticker a bar in {MAX_BAR_AGE_MINUTES} minutes"
    newest: dict[str, datetime | None] = {str(row["ticker"]): row["newest_at"] for row in rows}
    known = {ticker: at for ticker, at in newest.items() if at}
    until = max(known.values(), default=present.expected_since)
    if not present.is_watched or until - present.expected_since < limit:
        return Found(Level.NORMAL, CLOSED if not present.is_watched else "too early", {}, expected)
    without = [ticker for ticker, at in newest.items() if not at]
    stopped = [ticker for ticker, at in known.items() if until - at > limit]
    observed = {"without": without, "stopped": stopped}
    parts = [f"no bars in this session: {_listed(without)}"] if without else []
    if stopped:
        parts.append(f"none for {MAX_BAR_AGE_MINUTES} minutes: {_listed(stopped)}")
    level = Level.MEDIUM if without else Level.LOW if stopped else Level.NORMAL
    return Found(level, "; ".join(parts) or f"all {len(newest)} have", observed, expected)


def _listed(tickers: Sequence[str]) -> str:
    """Name some tickers, and count the others."""
    rest = len(tickers) - ranges.NAMED_TICKERS
    named = ", ".join(tickers[: ranges.NAMED_TICKERS])
    return f"{named}, and {rest} more" if rest > 0 else named


def watchlist_cadence(present: Present, rows: Rows) -> Found:
    """Each fifth minute of the last hour was decided."""
    due, decided = int(rows[0]["due"]), int(rows[0]["decided"])
    level = Level.MEDIUM if decided < due else Level.NORMAL
    if not due:
        return unmeasured("no decision was due", {"due": 0, "decided": decided}, "12 an hour")
    found = f"{decided} of {due} decisions in an hour"
    return Found(level, found, {"due": due, "decided": decided}, "12 an hour")


def news_volume(present: Present, rows: Rows) -> Found:
    """Neither silent feeds nor a flood, once half of a session is known."""
    if not (present.is_live or rows[0]["stories"]):
        return Found(Level.NOT_APPLICABLE, NO_NEWS)
    return _volume(present, rows[0], "stories", ranges.NEWS_MIN, ranges.NEWS_MAX)


def sentiment_volume(present: Present, rows: Rows) -> Found:
    """As many texts are scored as stories come, once half of a session is known."""
    if not (present.is_live or rows[0]["scored"]):
        return Found(Level.NOT_APPLICABLE, NO_NEWS)
    return _volume(present, rows[0], "scored", ranges.NEWS_MIN, ranges.NEWS_MAX)


def signal_volume(present: Present, rows: Rows) -> Found:
    """Neither no signals nor more than their cool-down lets through."""
    high = present.at_most(ranges.SIGNALS_MAX)
    return _volume(present, rows[0], "signals", ranges.SIGNALS_MIN, high)


def decision_volume(present: Present, rows: Rows) -> Found:
    """What a day executes, skips and fails at, once half of a session is known."""
    row = rows[0]
    failed, limit = int(row["failed"]), ranges.FAILED_MAX
    if failed > limit:
        return Found(Level.LOW, f"{failed} FAILED", {"failed": failed}, f"FAILED 0-{limit}")
    executed = _volume(present, row, "executed", ranges.EXECUTED_MIN, ranges.EXECUTED_MAX)
    high = present.at_most(ranges.SKIPS_MAX)
    skipped = _volume(present, row, "skipped", ranges.SKIPS_MIN, high)
    level = executed.level if executed.level is not Level.NORMAL else skipped.level
    return Found(
        level,
        f"{executed.finding}; {skipped.finding}",
        {**executed.observed, **skipped.observed, "failed": failed},
        f"executed {executed.expected}, skipped {skipped.expected}, FAILED 0-{limit}",
    )


def _volume(present: Present, row: Row, what: str, low: float, high: float) -> Found:
    """A day's count, once so much of the session is finished that it says something.

    What was finished counts, and not the clock: a pipeline that began at noon is held to its noon.
    """
    minutes, count = int(row["minutes"]), int(row[what])
    share = minutes / ranges.RUNBOOK_MINUTES
    observed = {what: count, "minutes": minutes}
    expected = f"{low * share:.0f}-{high * share:.0f} in {minutes} minutes"
    found = f"{count} {what}"
    least = present.minutes * ranges.JUDGED_FROM
    if minutes < least:
        known = f"{found} in {minutes} of the {least:.0f} minutes that it needs"
        return unmeasured(known, observed, expected)
    is_normal = low * share <= count <= high * share
    return Found(Level.NORMAL if is_normal else Level.LOW, found, observed, expected)


def news_are_scored(present: Present, rows: Rows) -> Found:
    """The stories of the last day are scored, and none was given up."""
    stories, scored = int(rows[0]["stories"]), int(rows[0]["scored"])
    given_up = int(rows[0]["given_up"])
    waiting = stories - scored - given_up
    said = scored_verdict(stories, scored, waiting=waiting, given_up=given_up)
    return Found(said.level, said.finding, said.observed, said.expected)


def news_name_tickers(present: Present, rows: Rows) -> Found:
    """The stories of the last day speak of the universe."""
    said = linked_verdict(int(rows[0]["stories"]), int(rows[0]["linked"]))
    return Found(said.level, said.finding, said.observed, said.expected)


def backlog_growth(present: Present, rows: Rows) -> Found:
    """What waits does not grow from hour to hour."""
    depths = {int(row["hours_ago"]): int(row["pending"]) for row in rows}
    now, hour, two = (depths[ago] for ago in range(3))
    expected = f"no growth over two hours to more than {ranges.GROWTH_MIN}"
    found = f"{now} wait, {hour} an hour ago, {two} two hours ago"
    observed = {"now": now, "an_hour_ago": hour, "two_hours_ago": two}
    if present.is_open and present.now - present.expected_since < timedelta(hours=2):
        return unmeasured(f"{now} wait; growth needs two hours", observed, expected)
    is_growing = present.is_open and now > ranges.GROWTH_MIN and now > hour > two
    return Found(Level.HIGH if is_growing else Level.NORMAL, found, observed, expected)


def abandoned_runs(present: Present, rows: Rows) -> Found:
    """The dispatcher's runs end by themselves; one that nobody closes is worse."""
    abandoned, open_runs = int(rows[0]["abandoned"]), int(rows[0]["unfinished"])
    observed = {"abandoned": abandoned, "unfinished": open_runs}
    level = Level.HIGH if open_runs else Level.LOW if abandoned else Level.NORMAL
    found = f"{abandoned} abandoned in a day, {open_runs} open for {ranges.OPEN_MINUTES} min"
    return Found(level, found, observed, "none")


def duplicate_orders(present: Present, rows: Rows) -> Found:
    """No order of ours stands twice at the broker."""
    ids = [str(row["client_order_id"]) for row in rows]
    level = Level.CRITICAL if ids else Level.NORMAL
    found = f"{len(ids)} ids twice" + (f": {', '.join(ids[:3])}" if ids else "")
    return Found(level, found, {"client_order_ids": ids}, "no rows")


def run_durations(present: Present, rows: Rows) -> Found:
    """Half of the last hour's runs of each service take no longer than the runbook's baseline."""
    known = [row for row in rows if int(row["count"]) >= ranges.DURATIONS_MIN]
    seconds = {str(row["service"]): round(float(row["p50_seconds"]), 2) for row in known}
    slow = {name: took for name, took in seconds.items() if took > ranges.BASELINES[name]}
    expected = ", ".join(f"{name} < {most} s" for name, most in ranges.BASELINES.items())
    if slow:
        named = ", ".join(f"{name} {took:g} s" for name, took in slow.items())
        return Found(Level.LOW, f"slow: {named}", seconds, expected)
    if not known:
        why = f"no service has {ranges.DURATIONS_MIN} runs in the last hour"
        return unmeasured(why, seconds, expected)
    longest = max(seconds, key=lambda name: seconds[name])
    found = f"the longest: {longest} {seconds[longest]:g} s"
    return Found(Level.NORMAL, found, seconds, expected)


def unclosed_positions(present: Present, rows: Rows) -> Found:
    """Each position that had to be closed is flat soon, and the broker refused no closing order."""
    limit = timedelta(minutes=ranges.CLOSE_MINUTES)
    failed = [row for row in rows if row["failures"]]
    late = [row for row in rows if not row["failures"] and present.now - row["due_at"] > limit]
    said = [
        f"{row['ticker']} {row['held']:+,} since {row['due_at']:%H:%M} UTC"
        + (f", tried {row['failures']} times, {row['failure']}" if row["failures"] else "")
        for row in (*failed, *late)
    ]
    level = Level.CRITICAL if failed else Level.HIGH if late else Level.NORMAL
    observed = {str(row["ticker"]): int(row["failures"]) for row in rows}
    found = f"not closed: {'; '.join(said)}" if said else f"{len(rows)} being closed"
    return Found(level, found, observed, f"flat within {ranges.CLOSE_MINUTES} min, no failed order")


def clock_skew(present: Present, rows: Rows) -> Found:
    """Our clock and the database server's agree: both stamp rows that are compared."""
    skew, refused = float(rows[0]["seconds"]), rows[0]["refused_seconds"]
    limit, worst = ranges.SKEW_SECONDS, ranges.SKEW_WORST_SECONDS
    level = Level.NORMAL
    if abs(skew) > limit:
        level = Level.HIGH if abs(skew) > worst else Level.MEDIUM
    found = f"the database's clock is {abs(skew):.1f} s {'ahead' if skew > 0 else 'behind'}"
    if refused is not None:
        level = Level.HIGH
        found = f"a dispatcher opens nothing: its clock is {abs(refused):.1f} s off the database's"
    return Found(level, found, {"seconds": round(skew, 3)}, f"within {limit:g} s")
