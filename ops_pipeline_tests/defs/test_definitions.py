"""What Dagster is told: assets, partitions, lineage, freshness, jobs, and what an import costs."""

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from datetime import date
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.definitions.assets.graph.asset_graph import AssetGraph

from ops_pipeline.domain.checks import CHECKS
from ops_pipeline.domain.machine import CLOCK, DISK
from ops_pipeline.domain.slo import NAMES
from ops_pipeline.operations.runbook.sections import SECTIONS
from ops_pipeline.settings import Mode, Settings
from ops_pipeline_tests.defs.world import STAGES, open_world

PROJECT = Path(__file__).resolve().parents[2]
PARENTS = {
    "news": set(),
    "bars": set(),
    "sentiment": {"news"},
    "features": {"bars", "news", "sentiment"},
    "watchlist": {"features", "watchlist"},
    "signals": {"features", "watchlist", "signals"},
    "executions": {"signals"},
    "pipeline_slo": {"signals", "executions"},
}


@pytest.fixture(scope="module")
def definitions(template: Settings) -> dg.Definitions:
    with open_world(template) as world:
        return world.definitions


@pytest.fixture(scope="module")
def graph(definitions: dg.Definitions) -> AssetGraph:
    return definitions.resolve_asset_graph()


def keys(graph: AssetGraph) -> set[str]:
    return {key.to_user_string() for key in graph.get_all_asset_keys()}


def own_keys(graph: AssetGraph) -> set[str]:
    return {key.to_user_string() for key in graph.materializable_asset_keys}


def test_assets_are_the_stages_the_executions_the_measure_and_the_retention(
    graph: AssetGraph,
) -> None:
    assert own_keys(graph) == {*STAGES, "executions", "pipeline_slo", "retention"}


def test_what_has_no_partitions_does_not_list_all_minutes(graph: AssetGraph) -> None:
    """Fifteen years of them take Dagster a minute of processor time in each run."""
    depending = [
        (below, above)
        for below in map(graph.get, graph.materializable_asset_keys)
        for above in map(graph.get, below.parent_keys)
        if above.is_partitioned and not below.is_partitioned
    ]
    assert {below.key.to_user_string() for below, _ in depending} == {"executions", "pipeline_slo"}
    for below, above in depending:
        mapping = graph.get_partition_mapping(below.key, above.key)
        assert isinstance(mapping, dg.LastPartitionMapping)


def test_no_other_key_is_mentioned(graph: AssetGraph) -> None:
    # The certificate is made by the verb chaos, the stream is a process of its own; a sensor tells
    # what operators control.
    others = {"exactly_once_certificate", "trade_stream", "dispatcher_config", "services"}
    assert keys(graph) == {*own_keys(graph), *others}


def test_every_asset_key_is_one_word(graph: AssetGraph) -> None:
    assert all(len(key.path) == 1 for key in graph.materializable_asset_keys)


def test_groups_are_the_words_of_the_stages(graph: AssetGraph) -> None:
    groups = {
        key.to_user_string(): graph.get(key).group_name for key in graph.materializable_asset_keys
    }
    own = {"executions": "dispatch", "pipeline_slo": "slo", "retention": "retention"}
    assert groups == {**{name: name for name in STAGES}, **own}


def test_everything_that_the_ui_lists_says_what_it_is(definitions: dg.Definitions) -> None:
    repository = definitions.get_repository_def()
    graph = definitions.resolve_asset_graph()
    said = {
        **{key.to_user_string(): graph.get(key).description for key in graph.get_all_asset_keys()},
        **{job.name: job.description for job in repository.get_all_jobs()},
        **{each.name: each.description for each in repository.schedule_defs},
        **{each.name: each.description for each in repository.sensor_defs},
    }
    silent = [name for name, description in said.items() if not description]
    assert silent == ["__ASSET_JOB"], "only Dagster's own job may say nothing"


@pytest.mark.parametrize("name", PARENTS)
def test_lineage_is_that_of_the_flow(graph: AssetGraph, name: str) -> None:
    parents = {key.to_user_string() for key in graph.get(dg.AssetKey(name)).parent_keys}
    assert parents & own_keys(graph) == PARENTS[name]


def test_news_and_bars_lead_to_executions(graph: AssetGraph) -> None:
    selected = dg.AssetSelection.assets("executions").upstream().resolve(graph)
    assert {key.to_user_string() for key in selected} >= {*STAGES}


def test_all_six_stages_share_one_partitions_definition(graph: AssetGraph) -> None:
    found = {graph.get(dg.AssetKey(name)).partitions_def for name in STAGES}
    assert len(found) == 1
    assert found != {None}


def test_executions_have_no_partitions(graph: AssetGraph) -> None:
    assert graph.get(dg.AssetKey("executions")).partitions_def is None


def test_one_day_has_390_keys_from_open_to_close(graph: AssetGraph) -> None:
    found = graph.get(dg.AssetKey("bars")).partitions_def
    assert found is not None
    names = found.get_partition_keys()
    assert len(names) == 390
    assert (names[0], names[-1]) == ("2025-02-12T09:30-0500", "2025-02-12T15:59-0500")


@pytest.mark.parametrize("name", STAGES)
def test_range_of_a_stage_is_one_run(graph: AssetGraph, name: str) -> None:
    assert graph.get(dg.AssetKey(name)).backfill_policy == dg.BackfillPolicy.single_run()


def test_replay_has_no_freshness_policies(graph: AssetGraph) -> None:
    policies = [graph.get(key).freshness_policy for key in graph.materializable_asset_keys]
    assert set(policies) == {None}


def test_sandbox_stages_have_freshness_policies(template: Settings) -> None:
    from ops_pipeline.definitions import build

    with open_world(template) as world:
        assert world.definitions
        live = replace(world.settings, mode=Mode.SANDBOX)
        # The manifest names no database in what is looked at here: one parse is enough.
        shutil.copytree(world.settings.dbt_dir, live.dbt_dir, dirs_exist_ok=True)
        graph = build(live).resolve_asset_graph()
    policies = {name: graph.get(dg.AssetKey(name)).freshness_policy for name in STAGES}
    assert [name for name, policy in policies.items() if policy is None] == []
    assert len({str(policy) for policy in policies.values()}) == 1


def test_sandbox_partitions_go_round_the_clock(template: Settings) -> None:
    from ops_pipeline.defs.partitions import minute_partitions
    from ops_pipeline.settings import PartitionWindow

    day = PartitionWindow(date(2025, 2, 15), date(2025, 2, 15))
    made = minute_partitions(replace(template, mode=Mode.SANDBOX, window=day))
    assert made.get_num_partitions() == 1440


def test_jobs_schedules_and_sensors_have_their_names(definitions: dg.Definitions) -> None:
    repository = definitions.get_repository_def()
    jobs = {job.name for job in repository.get_all_jobs() if not job.name.startswith("__")}
    scheduled = {"minute", "acceptance", "lookahead", "slo", "retention"}
    jobs -= {section.job_name for section in SECTIONS}
    assert jobs == {f"{name}_job" for name in (*scheduled, "dispatch")}
    assert {s.name for s in repository.schedule_defs} == {f"{name}_schedule" for name in scheduled}
    assert {s.name for s in repository.sensor_defs if s.name == "dispatch_sensor"}


def test_minute_job_has_the_stages_and_no_checks(definitions: dg.Definitions) -> None:
    layer = definitions.resolve_job_def("minute_job").asset_layer
    assert {key.to_user_string() for key in layer.selected_asset_keys} == {*STAGES}
    assert layer.asset_graph.asset_check_keys == set()


def test_dispatch_job_takes_the_checks_of_the_executions_along(definitions: dg.Definitions) -> None:
    graph = definitions.resolve_job_def("dispatch_job").asset_layer.asset_graph
    assert {key.asset_key.to_user_string() for key in graph.asset_check_keys} == {"executions"}
    assert len(graph.asset_check_keys) == len(of_catalogue("executions")) + 2


def test_lookahead_job_has_the_proof_alone(definitions: dg.Definitions) -> None:
    graph = definitions.resolve_job_def("lookahead_job").asset_layer.asset_graph
    assert {key.name for key in graph.asset_check_keys} == {"nothing_looks_ahead"}


def test_slo_job_measures_and_judges(definitions: dg.Definitions) -> None:
    layer = definitions.resolve_job_def("slo_job").asset_layer
    assert {key.to_user_string() for key in layer.selected_asset_keys} == {"pipeline_slo"}
    found = {key.name for key in layer.asset_graph.asset_check_keys}
    assert found == {*NAMES, CLOCK, DISK, *of_catalogue("pipeline_slo")}


def test_acceptance_job_has_the_catalogue_and_the_tests_of_the_data(
    definitions: dg.Definitions,
) -> None:
    graph = definitions.resolve_job_def("acceptance_job").asset_layer.asset_graph
    found = {key.name for key in graph.asset_check_keys}
    assert found > {check.name for check in CHECKS}
    assert len(found) == len(CHECKS) + 7


def of_catalogue(asset: str) -> set[str]:
    """The checks of this asset."""
    return {check.name for check in CHECKS if check.asset == asset}


# Imports, each in a process of its own.

NO_SOCKETS = """
import socket
def refuse(*args, **kwargs):
    raise AssertionError(f"connects to {args}")
socket.socket.connect = refuse
import psycopg, psycopg2
psycopg.connect = psycopg.Connection.connect = psycopg2.connect = refuse
"""


def imported(code: str, var_dir: Path) -> set[str]:
    """The modules that are there after this code."""
    outcome = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys; print('\\n'.join(sys.modules))"],
        env={**os.environ, "OPS_VAR_DIR": str(var_dir)},
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert outcome.returncode == 0, outcome.stderr
    return set(outcome.stdout.split())


@pytest.fixture(scope="module")
def of_definitions(
    definitions: dg.Definitions, template: Settings, tmp_path_factory: pytest.TempPathFactory
) -> set[str]:
    """What the code location imports in a folder that knows of no server."""
    var_dir = tmp_path_factory.mktemp("empty")
    # One parse is enough.
    shutil.copytree(template.dbt_dir, var_dir / "replay" / "dbt")
    return imported(NO_SOCKETS + "import ops_pipeline.definitions", var_dir)


def test_code_location_loads_without_a_server_or_a_connection(of_definitions: set[str]) -> None:
    assert "ops_pipeline.definitions" in of_definitions


def test_code_location_imports_no_model(of_definitions: set[str]) -> None:
    assert of_definitions & {"torch", "transformers", "onnxruntime"} == set()


def test_command_line_imports_no_dagster(tmp_path: Path) -> None:
    found = imported("import ops_pipeline.cli", tmp_path)
    assert {name for name in found if name.split(".")[0].startswith(("dagster", "dbt"))} == set()
