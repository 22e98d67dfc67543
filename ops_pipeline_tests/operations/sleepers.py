"""A keeper of processes that sleep, of which one says what a script does."""

import shutil
import signal
from dataclasses import replace

from ops_pipeline.local import keeper as keepers
from ops_pipeline.local.keeper import Asked, Kept
from ops_pipeline.settings import STREAM, load

SLEEPS = [str(shutil.which("sleep")), "600"]


def keep(stream: str) -> None:
    """Be the keeper of this environment's mode until terminated; its stream is the script."""
    keeper = keepers._keeper(load(), Asked(3000))
    commands = {STREAM: ["sh", "-c", stream]}
    kept = [Kept(one.name, commands.get(one.name, SLEEPS)) for one in keeper.kept]
    signal.signal(signal.SIGTERM, lambda *_: keeper.ended.set())
    replace(keeper, kept=kept).run()
