"""Minute partitions by the thousand: asked about all at once, and walked only once.

Dagster asks of each key by itself whether it is a partition, and walks the schedule and its
exclusions anew for each answer and each list: with 23,400 minutes a page waits for minutes.
"""

from collections.abc import Iterable, Iterator, Set
from datetime import datetime, timedelta
from threading import Lock
from typing import Any

from dagster import AssetKey, DagsterInstance, TimeWindow, TimeWindowPartitionsDefinition
from dagster._core.definitions.partitions.context import partition_loading_context
from dagster._core.instance.types import DynamicPartitionsStore
from dagster._core.storage.partition_status_cache import get_and_update_asset_status_cache_value
from dagster._time import dst_safe_strptime

# So few are asked one by one.
FEW = 4
# One for each range of days that this process has seen; more are forgotten.
DEFINITIONS = 4
_walking = Lock()
_walked: dict[TimeWindowPartitionsDefinition, tuple[list[str], datetime]] = {}
one_by_one = TimeWindowPartitionsDefinition.filter_valid_partition_keys


def make_light() -> None:
    """Let Dagster use what stands here, from now on and in this process."""
    stock: Any = TimeWindowPartitionsDefinition
    stock.filter_valid_partition_keys = at_once
    stock.get_partition_keys = keys_of
    stock.get_num_partitions = number_of


def prepare_status(
    instance: DagsterInstance, assets: Iterable[str], definition: TimeWindowPartitionsDefinition
) -> None:
    """Bring up to date what Dagster keeps of the partitions' status; a page does it otherwise."""
    make_light()
    for asset in assets:
        get_and_update_asset_status_cache_value(instance, AssetKey(asset), definition)


def at_once(definition: TimeWindowPartitionsDefinition, partition_keys: set[str]) -> Set[str]:
    """Those of the keys that are partitions; the same that Dagster finds one by one."""
    first, last = definition.get_first_partition_window(), definition.get_last_partition_window()
    starts = dict(_starts(definition, partition_keys))
    if len(partition_keys) <= FEW or not (first and last and starts):
        return one_by_one(definition, partition_keys)
    # What lies between the earliest and the latest of them is walked once.
    newest = definition.start_time_for_partition_key(max(starts, key=starts.__getitem__))
    begin = max(min(starts.values()), first.start)
    end = min(newest + timedelta(seconds=1), last.end)
    there = definition.get_partition_keys_in_time_window(TimeWindow(begin, end))
    return partition_keys.intersection(there)


def keys_of(
    definition: TimeWindowPartitionsDefinition,
    current_time: datetime | None = None,
    dynamic_partitions_store: DynamicPartitionsStore | None = None,
) -> list[str]:
    """All keys up to the present, in order; those that were found before are not walked again."""
    with partition_loading_context(current_time, dynamic_partitions_store):
        windows = definition.get_first_partition_window(), definition.get_last_partition_window()
    first, last = windows
    if first is None or last is None:
        return []
    # The queries of a page come together: one walks, the others have what it found.
    with _walking:
        known, end = _walked.get(definition, ([], first.start))
        if end > last.end:
            known, end = [], first.start
        if end < last.end:
            more = definition.get_partition_keys_in_time_window(TimeWindow(end, last.end))
            known = [*known, *more]
            if len(_walked) >= DEFINITIONS:
                _walked.clear()
            _walked[definition] = (known, last.end)
        return list(known)


def number_of(definition: TimeWindowPartitionsDefinition) -> int:
    """How many partitions there are up to the present."""
    return len(keys_of(definition))


def _starts(
    definition: TimeWindowPartitionsDefinition, keys: set[str]
) -> Iterator[tuple[str, datetime]]:
    for key in keys:
        try:
            yield key, dst_safe_strptime(key, definition.timezone, definition.fmt)
        except ValueError:
            continue
