"""Reports: alarms, and acts upon models, as they were said on the drift topic."""

from __future__ import annotations

from typing import Any

import msgspec

from schemas.reports import Severity
from schemas.tables import Report


class ReportRow(msgspec.Struct, frozen=True):
    """What was said on the drift topic, with `detected_at` in epoch seconds."""

    report_id: str
    scenario: str
    signal: str
    status: str
    severity: Severity
    value: float | None
    reference: float | None
    threshold: float | None
    window: int
    detected_at: float
    action: str
    reason: str


def report_row(report: Report) -> ReportRow:
    fields: dict[str, Any] = {name: getattr(report, name) for name in ReportRow.__struct_fields__}
    return ReportRow(**fields)
