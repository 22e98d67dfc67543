"""Runs a measure in a process of its own, so that its memory is its own, and its code location."""

import multiprocessing
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import ParamSpec, TypeVar

Words = ParamSpec("Words")
Found = TypeVar("Found")


def alone(work: Callable[Words, Found], *words: Words.args, **named: Words.kwargs) -> Found:
    """What a function of a module gives in a process that begins with nothing loaded."""
    # A child whose parent is interrupted cannot give back its semaphores; nobody has to read so.
    os.environ.setdefault("PYTHONWARNINGS", "ignore::UserWarning:multiprocessing.resource_tracker")
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(work, *words, **named).result()
