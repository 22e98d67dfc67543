"""The verb chaos: hurt the dispatcher at every boundary, and certify that nothing came twice."""

import json
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from ops_pipeline.cli.console import (
    JsonOption,
    ModeOption,
    out,
    plain,
    progress,
    say,
    show_result,
    table,
)
from ops_pipeline.cli.server import prepare, running_server
from ops_pipeline.environment import apply
from ops_pipeline.private_files import replace_private
from ops_pipeline.proofs.chaos.certificate import Certificate, certify
from ops_pipeline.proofs.chaos.plan import POINTS, PROMISES
from ops_pipeline.settings import Settings
from ops_pipeline.storage.knowledge import clock

SHOWN = 20


def chaos(
    seeds: Annotated[int, typer.Option(min=1, max=1_000, help="Faults at each point.")] = 20,
    first_seed: Annotated[int, typer.Option(min=0, help="The first seed.")] = 0,
    lanes: Annotated[int, typer.Option(min=1, max=8, help="Trials at a time.")] = 2,
    mode: ModeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Kill, cut, freeze and double dispatchers at every boundary; exit code 1 if it ever shows.

    It works on servers of its own that are gone after; the certificate is kept as an asset of the
    mode, and only for code that is committed.
    """
    with (
        tempfile.TemporaryDirectory(prefix="ops-chaos-") as folder,
        progress(quiet=as_json) as bars,
    ):
        task = bars.add_task("dispatchers hurt", total=seeds * (len(POINTS) + PROMISES))
        found = certify(
            Path(folder),
            clock(),
            seeds=seeds,
            first_seed=first_seed,
            lanes=lanes,
            on_trial=lambda _: bars.advance(task),
        )
    if found.is_proven and found.code.is_clean:
        _keep(mode, found, quiet=as_json)
    show_result(found, _print, as_json=as_json, is_normal=found.is_proven)


def _keep(mode: ModeOption, found: Certificate, *, quiet: bool) -> None:
    with running_server(mode) as settings:
        prepare(settings)
        path = certificate_file(settings)
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_private(path, json.dumps(plain(found), indent=2, allow_nan=False))
        apply(settings)
        from ops_pipeline.defs.certificate import report

        report(plain(found))
    if not quiet:
        say(f"kept as the asset exactly_once_certificate, and in {path}")


def certificate_file(settings: Settings) -> Path:
    """Where the newest certificate of a mode lies."""
    return settings.mode_dir / "exactly_once_certificate.json"


def _print(found: Certificate) -> None:
    by_fault = sorted(found.by_fault.items())
    out.print(table("faults that struck", ["fault", "times"], [list(pair) for pair in by_fault]))
    points = [[point, found.by_point.get(point, 0)] for point in found.points]
    out.print(table("boundaries hit", ["point", "times"], points))
    caught = [[each.defect, each.seen or "NOT SEEN", each.tries] for each in found.caught]
    out.print(table("planted defects", ["defect", "seen by", "injections"], caught))
    for what, why in found.not_tested.items():
        say(f"not tested: {what}: {why}")
    for detail in found.counts.details[:SHOWN]:
        say(detail)
    counts, code = found.counts, found.code
    say(
        f"{found.trials} trials, {found.effective} struck, {found.with_broker} with a broker;"
        f" {found.claims} claims, {found.recoveries} of them taken back and made good;"
        f" {found.seconds:.0f} s"
    )
    say(
        f"duplicates {counts.duplicates}, lost {counts.lost}, unfinished {counts.unfinished},"
        f" mismatched {counts.mismatched}, unknown at the broker {counts.orphans},"
        f" over a limit {counts.over_limit}, late {counts.late}"
    )
    if not found.effective:
        say("nothing was hurt: this proves nothing")
    if not code.is_clean:
        say("the code is not that of a commit: no certificate is kept")
    verdict = "exactly once" if found.is_proven else "NOT PROVEN"
    say(f"{verdict}: ops-pipeline {code.version}, commit {code.commit or 'none'}")
