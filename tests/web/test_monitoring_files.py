"""Dashboard, alert rules and their documentation use metrics that exist."""

import json
import re
from pathlib import Path

import pytest
import yaml
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily

from referral.adapters.observability.prometheus import METRICS, Metric

DOCS = Path(__file__).parents[2] / "docs"
OPERATIONS_PAGE = (DOCS / "operations.md").read_text()
RULES = yaml.safe_load((DOCS / "operations/alerts.yml").read_text())["groups"][0]["rules"]
PANELS = json.loads((DOCS / "operations/dashboard.json").read_text())["panels"]

EXPRESSIONS = [rule["expr"] for rule in RULES] + [
    target["expr"] for panel in PANELS for target in panel["targets"]
]
METRIC_NAME = re.compile(r"referral_\w+")
SELECTED = re.compile(r"(referral_\w+)\{([^}]*)\}")
GROUPED = re.compile(r"by \(([^)]*)\)")


def _samples(metric: Metric) -> dict[str, set[str]]:
    labels = set(metric.labels)
    if metric.family_type is CounterMetricFamily:
        return {f"{metric.name}_total": labels}
    if metric.family_type is HistogramMetricFamily:
        names = {f"{metric.name}_{end}": labels for end in ("sum", "count")}
        return names | {f"{metric.name}_bucket": labels | {"le"}}
    return {metric.name: labels}


SAMPLES = {name: labels for metric in METRICS for name, labels in _samples(metric).items()}


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_expressions_use_existing_metrics_and_labels(expression: str) -> None:
    """Every metric and label in a query exists."""
    used = set(METRIC_NAME.findall(expression))
    assert used
    assert used <= SAMPLES.keys()
    known = set.intersection(*(SAMPLES[name] for name in used))
    for grouped in GROUPED.findall(expression):
        assert {label.strip() for label in grouped.split(",")} <= known
    for name, selectors in SELECTED.findall(expression):
        assert set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", selectors)) <= SAMPLES[name]


def test_every_metric_is_documented_and_on_the_dashboard() -> None:
    """The page lists each metric with its labels."""
    shown = set(METRIC_NAME.findall(" ".join(EXPRESSIONS)))
    for metric in METRICS:
        row = re.search(
            rf"^\| `{metric.name}(_total)?` \| ([^|]*)\|", OPERATIONS_PAGE, re.MULTILINE
        )
        assert row, metric.name
        assert set(re.findall(r"`(\w+)`", row[2])) == set(metric.labels), metric.name
        assert set(_samples(metric)) & shown, metric.name


def test_every_alert_has_a_runbook_section() -> None:
    """The page has one section for each alert, and no other."""
    sections = set(re.findall(r"^### (Referral\w+)$", OPERATIONS_PAGE, re.MULTILINE))
    assert sections == {rule["alert"] for rule in RULES}
    for rule in RULES:
        assert rule["annotations"]["summary"]
        assert rule["labels"]["severity"] in {"page", "ticket"}
