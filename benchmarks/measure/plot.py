"""Draws what bench tick measured."""

from collections.abc import Sequence
from pathlib import Path

from benchmarks.measure.tick import PHASES, Tick, typical
from ops_pipeline.domain.errors import BadConfiguration

INSTALL = "pip install -c constraints.txt -e '.[bench]'"


def draw(ticks: Sequence[Tick], path: Path) -> None:
    """A bar for each way, one piece for each phase, the median of each, as a PNG.

    Raises:
        BadConfiguration: matplotlib is absent.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise BadConfiguration("matplotlib must be installed to draw", f"run: {INSTALL}") from None
    ways = list(dict.fromkeys(tick.way for tick in ticks))
    figure = Figure(figsize=(9, 1.6 + 0.8 * len(ways)), layout="constrained")
    axes = figure.subplots()
    before = [0.0] * len(ways)
    for phase in PHASES:
        seconds = [typical([t for t in ticks if t.way == way], phase) for way in ways]
        axes.barh(ways, seconds, left=before, label=phase, height=0.6)
        before = [start + length for start, length in zip(before, seconds, strict=True)]
    for row, total in enumerate(before):
        axes.annotate(f" {total:.2f} s", (total, row), va="center")
    axes.set(xlabel="seconds from the request to the last asset, medians by phase")
    axes.margins(x=0.12)
    axes.invert_yaxis()
    axes.legend(ncols=len(PHASES), loc="lower center", bbox_to_anchor=(0.5, 1.0), frameon=False)
    figure.savefig(path, dpi=150)
