"""Write and read small files of the var folder that processes share."""

import json
import os
import tempfile
from pathlib import Path
from typing import Any

from ops_pipeline.domain.errors import BadConfiguration


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


def read_object(path: Path, hint: str = "") -> dict[str, Any] | None:
    """Return the JSON object in a file; None where there is no file.

    Raises:
        BadConfiguration: it cannot be read, or holds something else; the message names the file.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        reason = f"cannot be read: {error.strerror}"
    except (ValueError, RecursionError):
        is_empty = path.stat().st_size == 0
        reason = "is empty" if is_empty else "is damaged: it is not JSON"
    else:
        if isinstance(found, dict):
            return found
        reason = "is damaged: it is not a JSON object"
    raise BadConfiguration(f"{path} {reason}", hint)
