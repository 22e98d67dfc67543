"""What a full disk, a crash or a hand leaves in the place of a small file."""

import shutil
from collections.abc import Callable
from pathlib import Path


def _write(content: bytes) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    return damage


def _halve(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _replace_by_folder(path: Path) -> None:
    path.unlink(missing_ok=True)
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)


def _point_at_itself(path: Path) -> None:
    """Nobody can read it, root included."""
    path.unlink(missing_ok=True)
    path.symlink_to(path)


DAMAGES: dict[str, Callable[[Path], None]] = {
    "empty": _write(b""),
    "truncated": _halve,
    "binary": _write(bytes(range(256))),
    "list": _write(b"[1, 2]"),
    "number": _write(b"7"),
    "null": _write(b"null"),
    "empty object": _write(b"{}"),
    "fields of wrong types": _write(b'{"name": [], "pid": {}, "started": null, "first_day": 7}'),
    "nested": _write(b"[" * 100_000),
    "folder": _replace_by_folder,
    "unreadable": _point_at_itself,
}
