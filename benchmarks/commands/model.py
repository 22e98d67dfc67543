"""Benchmark model: headlines per second of CPU time, by each way to run FinBERT."""

from dataclasses import asdict
from typing import Annotated, Any

import typer

from benchmarks.isolation import alone
from benchmarks.measure import model_speed as speed
from benchmarks.options import within
from ops_pipeline.cli.console import (
    JsonOption,
    ModeOption,
    err,
    out,
    progress,
    say,
    show_result,
    table,
)
from ops_pipeline.cli.server import settings_of
from ops_pipeline.clients.finbert_folder import FP32, TO_EXPORT, onnx_folder, source_of
from ops_pipeline.domain.errors import BadConfiguration
from ops_pipeline.proofs.model.headlines import headlines
from ops_pipeline.settings import Settings

MAX_HEADLINES, MAX_ROUNDS = 2_000, 20


def model(
    count: Annotated[int, typer.Option("--headlines", help="So many of the built-in ones.")] = 256,
    rounds: Annotated[int, typer.Option(help="Of each way, in turn; the median counts.")] = 3,
    mode: ModeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Headlines per second of CPU time on one thread, each way in a process of its own."""
    within("headlines", count, 1, MAX_HEADLINES)
    within("rounds", rounds, 1, MAX_ROUNDS)
    settings = settings_of(mode)
    if not (onnx_folder(settings) / FP32).is_file():
        raise BadConfiguration("there is no exported model to measure", TO_EXPORT)
    found = _measured(settings, count, rounds, quiet=as_json)
    show_result(
        _document(found) if as_json else found,
        lambda _: _show_measured(found, rounds),
        as_json=as_json,
        is_normal=True,
    )


def _measured(settings: Settings, count: int, rounds: int, *, quiet: bool) -> list[speed.Measured]:
    source, folder, texts = source_of(settings), onnx_folder(settings), headlines(count)
    found: dict[str, list[speed.Measured]] = {way: [] for way in speed.ways()}
    with progress(quiet=quiet or not err.is_terminal) as bars:
        shown = bars.add_task("", total=rounds * len(found))
        # In turn, so that whatever else the machine does strikes all of them alike.
        for _ in range(rounds):
            for way, so_far in found.items():
                bars.update(shown, description=way)
                so_far.append(alone(speed.measure, way, source, folder, texts))
                bars.advance(shown)
    return speed.beside_naive([speed.middle(each) for each in found.values()])


def _document(found: list[speed.Measured]) -> list[dict[str, Any]]:
    kept = [{name: part for name, part in asdict(one).items() if name != "signed"} for one in found]
    return [
        {**each, "per_second": one.per_second, "to_naive": one.per_second / found[0].per_second}
        for each, one in zip(kept, found, strict=True)
    ]


def _show_measured(found: list[speed.Measured], rounds: int) -> None:
    columns = ["way", "texts", "a CPU-s", "to naive", "start", "peak MB", "off naive"]
    rows = [
        [
            one.way,
            one.headlines,
            round(one.per_second, 1),
            one.per_second / found[0].per_second,
            one.start_seconds,
            round(one.peak_mb),
            f"{one.from_naive:.1e}",
        ]
        for one in found
    ]
    out.print(table(f"one thread, CPU time, median of {rounds} rounds in turn", columns, rows))
    say("start: CPU-s of imports, loading and the first text; off naive: of a score, at most")
    say(f"{speed.PADDED}: for information; nobody should, and examples do")
