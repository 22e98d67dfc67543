"""What Dagster keeps for ever is thinned: ticks, the logs of finished runs, what those printed.

Asset history stays whole: materialisations, observations, and each plan to materialise that nothing
answered, because a partition is shown as failed by it. Of the results of a check stay those that
changed its verdict, and the newest; of runs those that failed, with why, and the last of an asset.
"""

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import sqlalchemy as sa
from dagster import DagsterEventType, DagsterRunStatus
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecordStatus
from dagster._core.storage.dagster_run import FINISHED_STATUSES
from dagster._core.storage.event_log import SqlEventLogStorageTable as Events
from dagster._core.storage.event_log.schema import AssetCheckExecutionsTable as Checks
from dagster._core.storage.event_log.schema import AssetKeyTable as Assets
from dagster._core.storage.runs.schema import RunsTable as Runs
from dagster._core.storage.runs.schema import RunTagsTable as RunTags
from dagster._core.storage.schedules.schema import JobTickTable as Ticks
from dagster._core.storage.tags import BACKFILL_ID_TAG

# A batch is one transaction; of so many rows it takes about a tenth of a second.
BATCH = 2_000
# What nobody looks at any more once the run is done and its log is old. A type that is not named
# here stays, also one that a later version of Dagster invents.
THINNED = (
    DagsterEventType.ASSET_CHECK_EVALUATION_PLANNED,
    DagsterEventType.ENGINE_EVENT,
    DagsterEventType.HANDLED_OUTPUT,
    DagsterEventType.HOOK_COMPLETED,
    DagsterEventType.HOOK_SKIPPED,
    DagsterEventType.LOADED_INPUT,
    DagsterEventType.LOGS_CAPTURED,
    DagsterEventType.OBJECT_STORE_OPERATION,
    DagsterEventType.PIPELINE_CANCELED,
    DagsterEventType.PIPELINE_CANCELING,
    DagsterEventType.PIPELINE_DEQUEUED,
    DagsterEventType.PIPELINE_ENQUEUED,
    DagsterEventType.PIPELINE_START,
    DagsterEventType.PIPELINE_STARTING,
    DagsterEventType.PIPELINE_SUCCESS,
    DagsterEventType.RESOURCE_INIT_STARTED,
    DagsterEventType.RESOURCE_INIT_SUCCESS,
    DagsterEventType.STEP_EXPECTATION_RESULT,
    DagsterEventType.STEP_INPUT,
    DagsterEventType.STEP_OUTPUT,
    DagsterEventType.STEP_RESTARTED,
    DagsterEventType.STEP_SKIPPED,
    DagsterEventType.STEP_START,
    DagsterEventType.STEP_SUCCESS,
    DagsterEventType.STEP_UP_FOR_RETRY,
    DagsterEventType.STEP_WORKER_STARTED,
    DagsterEventType.STEP_WORKER_STARTING,
)
Amount = tuple[int, int]


@dataclass(frozen=True)
class OldTicks:
    """Ticks of schedules and sensors from before an instant, but the newest one of each.

    The daemon reads from the newest where to go on.
    """

    engine: sa.Engine
    before: datetime
    tables = (Ticks,)

    def count(self) -> Amount:
        """How many there are, and their bytes."""
        return _count(self.engine, Ticks, self._scopes())

    def remove(self) -> Iterator[Amount]:
        """Delete them batch by batch, each a transaction; yields what went with it."""
        yield from _remove(self.engine, Ticks, self._scopes())

    def _scopes(self) -> Iterator[sa.ColumnElement[bool]]:
        newer = Ticks.alias("newer")
        has_newer = sa.exists().where(
            newer.c.job_origin_id == Ticks.c.job_origin_id, newer.c.id > Ticks.c.id
        )
        end = _first_id_since(self.engine, Ticks, self.before)
        yield sa.and_(Ticks.c.id < end, Ticks.c.timestamp < _naive(self.before), has_newer)


@dataclass(frozen=True)
class OldEvents:
    """What runs logged that ended before an instant, without the history of assets and checks."""

    engine: sa.Engine
    before: datetime
    tables = (Events,)

    def count(self) -> Amount:
        """How many there are, and their bytes."""
        return _count(self.engine, Events, self._scopes())

    def remove(self) -> Iterator[Amount]:
        """Delete them batch by batch, each a transaction; yields what went with it."""
        yield from _remove(self.engine, Events, self._scopes())

    def _scopes(self) -> Iterator[sa.ColumnElement[bool]]:
        """One for each type, because there is an index on type and id: what stays is not read."""
        end = _first_id_since(self.engine, Events, self.before)
        has_ended = sa.exists().where(Runs.c.run_id == Events.c.run_id, _ended_before(self.before))
        old = sa.and_(Events.c.id < end, has_ended)
        for thinned in _thinned():
            yield sa.and_(thinned, old)
        for answered in _answered():
            yield sa.and_(old, answered)


@dataclass(frozen=True)
class OldChecks:
    """Results of checks from before an instant that only said again what the one before had said.

    What is left says when a verdict changed, and what it is now. With a result goes its event.
    """

    engine: sa.Engine
    before: datetime
    tables = (Checks,)

    def count(self) -> Amount:
        """How many there are, and their bytes."""
        rows, size = 0, 0
        for batch in self._batches():
            with self.engine.connect() as connection:
                for table, ids in batch.items():
                    total = sa.select(sa.func.coalesce(sa.func.sum(_size_of(table)), 0))
                    found = connection.execute(total.select_from(table).where(table.c.id.in_(ids)))
                    size += int(found.scalar_one())
            rows += len(batch[Checks])
        return rows, size

    def remove(self) -> Iterator[Amount]:
        """Delete them batch by batch, each a transaction; yields what went with it."""
        for batch in self._batches():
            size = 0
            with self.engine.begin() as connection:
                for table, ids in batch.items():
                    gone = sa.delete(table).where(table.c.id.in_(ids)).returning(_size_of(table))
                    size += sum(connection.execute(gone).scalars())
            yield len(batch[Checks]), size

    def _batches(self) -> Iterator[dict[sa.Table, list[int]]]:
        """Ids of results, and of their events."""
        for check in self._checks():
            with self.engine.connect() as connection:
                found = connection.execute(self._repeated(check)).all()
            for first in range(0, len(found), BATCH):
                batch = found[first : first + BATCH]
                events = [row.evaluation_event_storage_id for row in batch]
                yield {
                    Checks: [row.id for row in batch],
                    Events: [event for event in events if event is not None],
                }

    def _checks(self) -> list[sa.ColumnElement[bool]]:
        key = (Checks.c.asset_key, Checks.c.check_name)
        with self.engine.connect() as connection:
            found = connection.execute(sa.select(*key).distinct()).all()
        return [sa.and_(key[0] == row[0], key[1] == row[1]) for row in found]

    def _repeated(self, check: sa.ColumnElement[bool]) -> sa.Select[tuple[int, int | None]]:
        """Of one check; what was planned and never told has said nothing at all."""
        planned = Checks.c.execution_status == AssetCheckExecutionRecordStatus.PLANNED.value
        alike = (Checks.c.partition, planned)
        said_before = sa.func.lag(Checks.c.execution_status)
        newest = sa.func.max(Checks.c.id).over(partition_by=alike)
        seen = (
            sa.select(
                Checks.c.id,
                Checks.c.evaluation_event_storage_id,
                Checks.c.evaluation_event_timestamp.label("at"),
                said_before.over(partition_by=alike, order_by=Checks.c.id).label("said_before"),
                Checks.c.execution_status.label("said"),
                newest.label("newest"),
            )
            .where(check)
            .subquery()
            .c
        )
        return (
            sa.select(seen.id, seen.evaluation_event_storage_id)
            .where(
                seen.at < _naive(self.before), seen.said == seen.said_before, seen.id < seen.newest
            )
            .order_by(seen.id)
        )


@dataclass(frozen=True)
class OldRuns:
    """Rows of runs that succeeded and ended before an instant, once their log has been thinned.

    One stays that was the last of an asset, or is part of a backfill: these pages lead to it.
    """

    engine: sa.Engine
    before: datetime
    # The tags of a run go with it.
    tables = (Runs, RunTags)

    def count(self) -> Amount:
        """How many there are, and their bytes without those of the tags."""
        return _count(self.engine, Runs, self._scopes())

    def remove(self) -> Iterator[Amount]:
        """Delete them batch by batch, each a transaction; yields what went with it."""
        yield from _remove(self.engine, Runs, self._scopes())

    def _scopes(self) -> Iterator[sa.ColumnElement[bool]]:
        # Without its row nothing would tell that the run has ended, and its log would stay.
        has_log = sa.exists().where(Events.c.run_id == Runs.c.run_id, sa.or_(*_thinned()))
        is_last = sa.exists().where(Assets.c.last_run_id == Runs.c.run_id)
        is_part = sa.exists().where(
            RunTags.c.run_id == Runs.c.run_id, RunTags.c.key == BACKFILL_ID_TAG
        )
        yield sa.and_(
            Runs.c.status == DagsterRunStatus.SUCCESS.value,
            _ended_before(self.before),
            sa.not_(has_log),
            sa.not_(is_last),
            sa.not_(is_part),
        )


@dataclass(frozen=True)
class OldOutput:
    """Files with what the steps of runs printed that ended before an instant.

    A folder whose run is not known any more goes by its own age. `folder` is the base folder of
    Dagster's LocalComputeLogManager.
    """

    engine: sa.Engine
    before: datetime
    folder: Path

    def count(self) -> Amount:
        """How many files there are, and their bytes."""
        found = [_files(folder) for folder in self._folders()]
        return sum(rows for rows, _ in found), sum(size for _, size in found)

    def remove(self) -> Iterator[Amount]:
        """Delete them run by run; yields what went with each."""
        for folder in self._folders():
            found = _files(folder)
            shutil.rmtree(folder)
            if not any(folder.parent.iterdir()):
                folder.parent.rmdir()
            yield found

    def _folders(self) -> Iterator[Path]:
        if not self.folder.is_dir():
            return
        names = sorted(path.name for path in self.folder.iterdir() if _is_run_folder(path))
        for first in range(0, len(names), BATCH):
            batch = names[first : first + BATCH]
            ended = self._ended(batch)
            for name in batch:
                printed = self.folder / name / "compute_logs"
                if ended[name] if name in ended else self._is_old(printed):
                    yield printed

    def _ended(self, run_ids: Sequence[str]) -> dict[str, bool]:
        """Of each run that is known, whether it ended before the instant."""
        known = sa.select(Runs.c.run_id, _ended_before(self.before)).where(
            Runs.c.run_id.in_(run_ids)
        )
        with self.engine.connect() as connection:
            return {str(run_id): bool(ended) for run_id, ended in connection.execute(known)}

    def _is_old(self, folder: Path) -> bool:
        return folder.stat().st_mtime < self.before.timestamp()


def has_tables(engine: sa.Engine) -> bool:
    """Whether Dagster has ever worked with this database."""
    there = set(sa.inspect(engine).get_table_names())
    return {Events.name, Runs.name, Ticks.name, Checks.name} <= there


def _ended_before(moment: datetime) -> sa.ColumnElement[bool]:
    """Of a run: it is finished, and since before this instant."""
    changed_at = sa.extract("epoch", Runs.c.update_timestamp)
    return sa.and_(
        Runs.c.status.in_([DagsterRunStatus(status).value for status in FINISHED_STATUSES]),
        # A run that never started has no end.
        sa.func.coalesce(Runs.c.end_time, changed_at) < moment.timestamp(),
    )


def _thinned() -> Iterator[sa.ColumnElement[bool]]:
    """Events that go, by their types; what the code of a run wrote to its log has none."""
    yield Events.c.dagster_event_type.is_(None)
    for thinned in THINNED:
        yield Events.c.dagster_event_type == thinned.value


def _answered() -> Iterator[sa.ColumnElement[bool]]:
    """Plans to materialise whose partition was materialised after them, by whichever run.

    Dagster asks for the newest event of a partition, so that only an unanswered plan is seen.
    Those without a partition stand apart, because there is an index for each, and none for both.
    """
    planned = DagsterEventType.ASSET_MATERIALIZATION_PLANNED.value
    made = Events.alias("made")
    for of_partition in (
        (Events.c.partition.is_(None), made.c.partition.is_(None)),
        (Events.c.partition.is_not(None), made.c.partition == Events.c.partition),
    ):
        is_made = sa.exists().where(
            made.c.dagster_event_type == DagsterEventType.ASSET_MATERIALIZATION.value,
            made.c.asset_key == Events.c.asset_key,
            made.c.id > Events.c.id,
            of_partition[1],
        )
        yield sa.and_(Events.c.dagster_event_type == planned, of_partition[0], is_made)


def _first_id_since(engine: sa.Engine, table: sa.Table, moment: datetime) -> int:
    """The id from which on rows are not older than this; ids and times grow together.

    Found by halving, because there is no index on the time.
    """
    low = 0
    with engine.connect() as connection:
        high = (connection.execute(sa.select(sa.func.max(table.c.id))).scalar() or 0) + 1
        while low < high:
            middle = (low + high) // 2
            nearest = sa.select(table.c.id, table.c.timestamp).where(table.c.id >= middle)
            row = connection.execute(nearest.order_by(table.c.id).limit(1)).first()
            if row is None or row.timestamp >= _naive(moment):
                high = middle
            else:
                low = row.id + 1
    return low


def _count(engine: sa.Engine, table: sa.Table, scopes: Iterator[sa.ColumnElement[bool]]) -> Amount:
    rows, size = 0, 0
    total = sa.func.coalesce(sa.func.sum(_size_of(table)), 0)
    for scope in scopes:
        with engine.connect() as connection:
            counted = sa.select(sa.func.count(), total).select_from(table).where(scope)
            found = connection.execute(counted).one()
            rows, size = rows + found[0], size + int(found[1])
    return rows, size


def _remove(
    engine: sa.Engine, table: sa.Table, scopes: Iterator[sa.ColumnElement[bool]]
) -> Iterator[Amount]:
    for scope in scopes:
        after = 0
        while True:
            batch = (
                sa.select(table.c.id)
                .where(scope, table.c.id > after)
                .order_by(table.c.id)
                .limit(BATCH)
                .correlate(None)
            )
            gone = (
                sa.delete(table).where(table.c.id.in_(batch)).returning(table.c.id, _size_of(table))
            )
            with engine.begin() as connection:
                found = connection.execute(gone).all()
            if not found:
                break
            # Not from the start again: what stays among them would be read each time.
            after = max(row[0] for row in found)
            yield len(found), sum(row[1] for row in found)


def _size_of(table: sa.Table) -> sa.ColumnElement[int]:
    return sa.func.pg_column_size(sa.literal_column(f"{table.name}.*"))


def _naive(moment: datetime) -> datetime:
    """As Dagster stores it: UTC without a zone."""
    return moment.astimezone(UTC).replace(tzinfo=None)


def _is_run_folder(path: Path) -> bool:
    printed = path / "compute_logs"
    is_linked = path.is_symlink() or printed.is_symlink()
    return _is_uuid(path.name) and printed.is_dir() and not is_linked


def _is_uuid(name: str) -> bool:
    try:
        return str(UUID(name)) == name
    except ValueError:
        return False


def _files(folder: Path) -> Amount:
    sizes = [path.lstat().st_size for path in folder.rglob("*") if not path.is_dir()]
    return len(sizes), sum(sizes)
