"""The verb model: pull, export, verify and list the models that score texts."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from ops_pipeline.cli.console import (
    JsonOption,
    ModeOption,
    err,
    out,
    print_json,
    progress,
    say,
    show_result,
    table,
    working,
)
from ops_pipeline.cli.server import settings_of
from ops_pipeline.clients.classifiers import classifier_of
from ops_pipeline.clients.finbert_folder import FP32, TO_EXPORT, onnx_folder, source_of
from ops_pipeline.domain.errors import BadConfiguration
from ops_pipeline.operations import models
from ops_pipeline.proofs.model import export as exporting
from ops_pipeline.proofs.model import int8, labelled
from ops_pipeline.proofs.model.headlines import headlines
from ops_pipeline.settings import Settings

app = typer.Typer(help="FinBERT on this machine: fetch, export, verify; docs/sentiment.md.")

BUILT_IN = 1_000
DataOption = Annotated[Path | None, typer.Option("--data", help=f"Texts: {labelled.FORMATS}.")]
LabelsOption = Annotated[
    str, typer.Option("--labels", help='What its labels mean: "0=negative,1=positive,2=neutral".')
]


@dataclass(frozen=True)
class Verified:
    """What verify found: of int8 beside fp32, of the active model on labelled texts, or of both."""

    texts: str
    int8: int8.Agreement | None
    not_judged: str
    labelled: list[labelled.Quality]


@app.command("list")
def list_models(mode: ModeOption = None, as_json: JsonOption = False) -> None:
    """Which models are there, which one scores; exit code 1 where the configured one cannot."""
    found = models.list_models(settings_of(mode))
    show_result(found, _show_listing, as_json=as_json, is_normal=not found.problem)


@app.command()
def pull(mode: ModeOption = None) -> None:
    """Fetch FinBERT's pinned revision (about 440 MB) into the var folder; needs the network."""
    settings = settings_of(mode)
    with working("pulling", quiet=False):
        models.pull(settings)
    say("FinBERT is here; next: ops-pipeline model export")


@app.command()
def export(mode: ModeOption = None, as_json: JsonOption = False) -> None:
    """Write FinBERT as ONNX, fp32 and int8; refused where it says another thing than torch."""
    settings = settings_of(mode)
    with progress(quiet=as_json or not err.is_terminal) as bars:
        shown = bars.add_task("", total=4)

        def on_step(name: str) -> None:
            bars.update(shown, description=name)
            bars.advance(shown)

        made = exporting.export(source_of(settings), onnx_folder(settings), on_step)
    if as_json:
        print_json(made)
        return
    say(f"{made.name} is exported: {exporting.told(made.parity)}")
    say("fp32 is used from now on; int8 is where it passes: ops-pipeline model verify")


@app.command()
def verify(
    data: DataOption = None,
    labels: LabelsOption = "",
    rows: Annotated[
        int, typer.Option(min=1, max=1_000_000, help="Maximum number of rows, evenly spaced.")
    ] = 2_000,
    mode: ModeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Judge int8 by fp32, and the active model by labelled texts where --data has labels.

    Exit code 1 where int8 is refused; then fp32 stays.
    """
    settings, names = settings_of(mode), labelled.parse_names(labels)
    texts = labelled.read_texts(data, names, rows) if data else _built_in()
    with working("scoring", quiet=as_json):
        found = _verified(settings, texts, data.name if data else "built-in headlines")
    is_normal = found.int8 is None or found.int8.is_enough
    show_result(found, _show_verified, as_json=as_json, is_normal=is_normal)


def _built_in() -> list[labelled.Text]:
    return [labelled.Text(text, None) for text in headlines(BUILT_IN)]


def _verified(settings: Settings, texts: list[labelled.Text], name: str) -> Verified:
    plain, folder = [text.text for text in texts], onnx_folder(settings)
    expected = [text.label for text in texts if text.label is not None]
    agreement, not_judged = None, ""
    if not (folder / FP32).is_file():
        not_judged = "there is no exported model"
    elif len(plain) < int8.MIN_HEADLINES:
        not_judged = f"{int8.MIN_HEADLINES} texts are needed, and there are {len(plain)}"
    else:
        agreement = int8.verify(folder, plain)
    if agreement is None and not expected:
        raise BadConfiguration(f"int8 cannot be judged: {not_judged}", TO_EXPORT)
    return Verified(name, agreement, not_judged, _qualities(settings, plain, expected))


def _qualities(settings: Settings, texts: list[str], expected: list[str]) -> list[labelled.Quality]:
    if not expected:
        return []
    # After the verdict on int8, which decides what is active.
    active = classifier_of(settings)
    found = [score.label for score in active.classify(texts)]
    name = f"{active.model.name} ({active.model.backend}, {active.model.precision})"
    return [
        labelled.quality_of(name, expected, found),
        labelled.majority(expected),
        labelled.plain_vader(expected, texts),
    ]


def _show_listing(found: models.Listing) -> None:
    columns = ["backend", "model", "revision", "weights", "MB", "int8", "scores"]
    rows = [
        [
            f"{kept.model.backend} {kept.model.precision}",
            kept.model.name,
            kept.model.revision[:12],
            kept.model.weights[:10] or None,
            round(kept.megabytes) or None,
            {None: None, True: "verified", False: "not verified"}[kept.is_verified],
            "yes" if kept.is_active else None,
        ]
        for kept in found.models
    ]
    out.print(table("", columns, rows))
    if found.problem:
        say(f"OPS_SENTIMENT={found.configured} cannot score: {found.problem}")
        say(found.hint)


def _show_verified(found: Verified) -> None:
    if found.int8:
        verdict = (
            "passed: int8 is used from now on" if found.int8.is_enough else "REFUSED: fp32 stays"
        )
        say(
            f"int8 beside fp32 on {found.int8.headlines:,} texts ({found.texts}):"
            f" {found.int8.agreement:.1%} of labels agree (at least {int8.MIN_AGREEMENT:.0%}),"
            f" probabilities differ by {found.int8.mean_difference:.4f} on average"
            f" (at most {int8.MAX_MEAN_DIFFERENCE}), by {found.int8.max_difference:.3f} at most;"
            f" {verdict}"
        )
    else:
        say(f"int8 is not judged: {found.not_judged}")
    if found.labelled:
        rows = [[one.model, one.macro_f1, one.accuracy] for one in found.labelled]
        out.print(table(f"labels of {found.texts}", ["model", "macro-F1", "accuracy"], rows))
