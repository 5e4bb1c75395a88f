"""Alert rules for Prometheus: what somebody should look at, with the command that says more."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from yibu.export.notes import Notes
from yibu.messages import tr


@dataclass(frozen=True, slots=True)
class Alert:
    """One rule."""

    name: str
    expression: str
    lasting: str
    severity: Literal["critical", "warning"]
    summary: str
    description: str


ALERTS = (
    Alert(
        "YibuDown", 'up{job="yibu"} == 0', "2m", "critical",
        tr("The node on {{ $labels.instance }} does not answer."),
        tr("See: yibu service status; yibu logs node. A 401 here is a wrong key in Prometheus' configuration."),
    ),
    Alert(
        "YibuModelFailed", 'yibu_model_state{state="failed"} == 1', "1m", "critical",
        tr("{{ $labels.model }} on {{ $labels.instance }} has failed and is not tried again."),
        tr("See the cause, and what to do about it: yibu ps. Then: yibu restart {{ $labels.model }}"),
    ),
    Alert(
        "YibuModelStartsForLong",
        'sum by (job, instance, model) (yibu_model_state{state=~"pending|starting"}) > 0', "30m", "warning",
        tr("{{ $labels.model }} on {{ $labels.instance }} has been starting for half an hour."),
        tr("See: yibu logs {{ $labels.model }}"),
    ),
    Alert(
        "YibuReplicaRestarts",
        "sum by (job, instance, model) (increase(yibu_replica_restarts_total[15m])) > 2", "0m", "warning",
        tr('{{ $labels.model }} on {{ $labels.instance }} was restarted {{ $value | printf "%.0f" }} times in 15 minutes.'),
        tr("Requests that were answered then are lost. Causes: yibu_replica_failures_total; yibu logs {{ $labels.model }}"),
    ),
    Alert(
        "YibuErrors",
        'sum by (job, instance, model) (rate(yibu_requests_total{status=~"5.."}[5m])) '
        "/ sum by (job, instance, model) (rate(yibu_requests_total[5m])) > 0.05", "5m", "critical",
        tr("{{ $value | humanizePercentage }} of the requests for {{ $labels.model }} fail."),
        tr("See: yibu logs node --level warning; yibu ps"),
    ),
    Alert(
        "YibuRefuses",
        'sum by (job, instance, model) (rate(yibu_requests_total{status="429"}[5m])) '
        "/ sum by (job, instance, model) (rate(yibu_requests_total[5m])) > 0.1", "10m", "warning",
        tr("{{ $value | humanizePercentage }} of the requests for {{ $labels.model }} are refused with 429."),
        tr("Its queue is full, or a key's limit is reached: yibu top; more replicas, or autoscale."),
    ),
    Alert(
        "YibuQueueWaits",
        "histogram_quantile(0.95, sum by (job, instance, model, le) (rate(yibu_queue_wait_seconds_bucket[5m]))) > 30",
        "10m", "warning",
        tr("Requests for {{ $labels.model }} wait {{ $value | humanizeDuration }} for a replica (95th percentile)."),
        tr("It needs more replicas or more requests at once: yibu top; yibu plan"),
    ),
    Alert(
        "YibuSlow",
        "histogram_quantile(0.95, sum by (job, instance, model, le) "
        '(rate(yibu_first_byte_seconds_bucket{path="/v1/chat/completions"}[10m]))) > 20', "15m", "warning",
        tr("Chats with {{ $labels.model }} begin after {{ $value | humanizeDuration }} (95th percentile)."),
        tr("See: yibu top; yibu bench {{ $labels.model }}"),
    ),
    Alert(
        "YibuEngineSilent", "yibu_engine_scrape_up == 0", "10m", "warning",
        tr("The engine of {{ $labels.model }}-{{ $labels.replica }} does not tell its metrics."),
        tr("It may hang: yibu test {{ $labels.model }}; yibu logs {{ $labels.model }}"),
    ),
)  # fmt: skip


def rules() -> str:
    """The file for ``rule_files``."""
    group = {"name": "yibu", "rules": [_rule(alert) for alert in ALERTS]}
    top = tr(
        "Written by `yibu export grafana`. The thresholds are a start: change them to yours.\n"
        "Check changes with: promtool check rules alerts.yaml"
    )
    return Notes().dump({"groups": [group]}, top=top)


def _rule(alert: Alert) -> dict[str, Any]:
    return {
        "alert": alert.name,
        "expr": alert.expression,
        "for": alert.lasting,
        "labels": {"severity": alert.severity},
        "annotations": {"summary": alert.summary, "description": alert.description},
    }
