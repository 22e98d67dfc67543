"""Writes small files that only their owner may read, whole or not at all; closes what is open."""

import contextlib
import os
import stat
import tempfile
from collections.abc import Iterable
from pathlib import Path


def replace_private(path: Path, text: str) -> None:
    """Put the text in place of the file: mode 0600, on the disk, never half written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except OSError:
        Path(name).unlink(missing_ok=True)
        raise


def close_to_others(paths: Iterable[Path]) -> None:
    """Take these files and folders of ours from every other account.

    What lies in a closed folder needs no look of its own. A folder in which another account keeps
    its data stays passable for it, and all else in it is closed.
    """
    for path in paths:
        # What a running process has just put in its place is closed from the start.
        with contextlib.suppress(FileNotFoundError):
            _close(path)


def _close(path: Path) -> None:
    found, us = path.lstat(), os.geteuid()
    if found.st_uid != us or stat.S_ISLNK(found.st_mode):
        return
    inside = list(path.iterdir()) if stat.S_ISDIR(found.st_mode) else []
    is_shared = any(one.exists() and one.lstat().st_uid != us for one in inside)
    mode = stat.S_IMODE(found.st_mode)
    if mode & ~(0o711 if is_shared else 0o700):
        path.chmod(mode & (0o711 if is_shared else 0o700))
    if is_shared:
        close_to_others(inside)
