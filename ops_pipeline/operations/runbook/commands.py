"""What answers each command that the operators' runbook prints, as data; docs and tests read it."""

import shlex
from dataclasses import dataclass


@dataclass(frozen=True)
class Answered:
    """A command of the runbook, by how it begins, and the words of ours after `ops-pipeline`.

    Ours is run as it stands by a test, so that it names a real service, key or section.
    """

    runbook: str
    ours: tuple[str, ...]

    @property
    def text(self) -> str:
        """Ours as it is typed."""
        return f"ops-pipeline {shlex.join(self.ours)}"


def _row(runbook: str, *ours: str) -> Answered:
    return Answered(runbook, ours)


def _diagnose(runbook: str, section: str) -> Answered:
    return Answered(runbook, ("runbook", "diagnose", section))


PUT = "aws ssm put-parameter --name /ops-pipeline/dispatcher_config --value"
COMMANDS = (
    _diagnose("aws scheduler list-schedules", "quick-health-check"),
    _row("aws events list-rules", "service", "list"),
    _row("aws ecs list-tasks", "status"),
    _row("aws logs describe-log-groups", "runbook", "verify", "no-logs-generated"),
    _row("aws logs filter-log-events", "logs", "dispatcher", "--since", "10m"),
    _row("aws lambda invoke --function-name ops-pipeline-db-migration", "doctor"),
    _row("cat db_test.json", "runbook", "verify", "check-rds-connectivity", "--json"),
    _row("SELECT status, COUNT(*) FROM dispatch_recommendations", "check", "backlog_state"),
    _row(
        "SELECT COUNT(*) FROM dispatch_recommendations WHERE status = 'PROCESSING'",
        "check",
        "stuck_processing",
    ),
    _row("SELECT recommendation_id, COUNT(*)", "check", "duplicate_executions"),
    _row("SELECT started_at, finished_at", "check", "recent_dispatcher_runs"),
    _row("SELECT COUNT(*) FROM dispatch_executions", "check", "execution_volume"),
    _diagnose("aws events describe-rule", "no-logs-generated"),
    _diagnose("aws ecs describe-tasks", "service-wont-start"),
    _diagnose(
        "SELECT risk_gate_json->'confidence'->>'reason' as reason, COUNT(*)", "backlog-growing"
    ),
    _row(
        f"{PUT} '{{\"confidence_min\": 0.60}}'",
        *("config", "set", "confidence_min=0.60", "--reason", "confidence blocks most"),
    ),
    _diagnose("SELECT failure_reason, COUNT(*)", "no-trades-happening"),
    _diagnose("aws ecs describe-services", "trade-stream-not-running"),
    _row("aws logs tail /ecs/ops-pipeline/trade-stream", "logs", "trade-stream", "--since", "10m"),
    _row("aws ssm get-parameter --name /ops-pipeline/db_host", "doctor"),
    _row(
        f"{PUT} '{{\"processing_ttl_minutes\": 5}}'",
        *("config", "set", "processing_ttl_minutes=5", "--reason", "rows are stuck"),
    ),
    _diagnose("SELECT risk_gate_json FROM dispatch_recommendations", "no-executions"),
    _row(
        "aws scheduler update-schedule --name ops-pipeline-dispatcher",
        *("service", "disable", "dispatcher", "--reason", "duplicate executions"),
    ),
    _diagnose("SELECT ticker, simulated_ts", "data-freshness-violations"),
    _diagnose("aws ecs describe-task-definition", "service-wont-start"),
    _row("aws ecr describe-images", "--version"),
    _row("aws ecs run-task", "runbook", "fix", "service-wont-start"),
    _diagnose("aws ec2 describe-security-groups", "rds-connection-timeout"),
    _row(
        "aws ssm get-parameter --name /ops-pipeline/dispatcher_config",
        *("config", "show", "--effective"),
    ),
    _row("aws ssm get-parameters-by-path", "config", "show"),
    _row(
        f"{PUT} '{{\"confidence_min\": 0.65}}'",
        *("config", "set", "confidence_min=0.65", "--reason", "gate tuning"),
    ),
    _row(
        "aws scheduler update-schedule --name ops-pipeline-{SERVICE}",
        *("service", "disable", "rss-ingest", "--until", "2030-01-01T15:00Z"),
    ),
)
