"""What a process that runs for days does about the memory that it has given back."""

import ctypes

# Of glibc's malloc.h.
M_ARENA_MAX = -8


def share_one_arena() -> bool:
    """Let all threads of this process take memory from one place, before they begin.

    glibc gives each thread an arena of its own, and none gives back what another one could use: a
    process whose threads take turns grows for minutes, though it holds nothing.

    Returns:
        Whether the C library knows how; others have no such arenas.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return bool(mallopt and mallopt(M_ARENA_MAX, 1))
