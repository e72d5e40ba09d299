"""Reporting: what LEARN says on the drift topic, and keeps for dashboards."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from sqlalchemy.exc import DBAPIError

from schemas.reports import DriftReport, encode_report
from streams import metrics
from streams.history import History
from streams.outbox import Outbox

log = logging.getLogger(__name__)


class Reporter:
    """Sends reports on their way; what the database does not take now is tried again with the next ones."""

    def __init__(self, outbox: Outbox, topic: str, history: History) -> None:
        self._outbox = outbox
        self._topic = topic
        self._history = history
        self._unkept: list[DriftReport] = []

    def say(self, reports: Sequence[DriftReport]) -> None:
        """Publish reports, and keep them."""
        for report in reports:
            level = logging.WARNING if report.severity == "page" else logging.INFO
            log.log(level, "%s: %s", report.scenario, report.reason)
            self._outbox.send(self._topic, report.scenario.encode(), encode_report(report), partition=0)
        if reports:
            self._outbox.flush()
        for report in reports:
            if report.status == "alarm":
                metrics.count_alarm(report.scenario, report.signal)
        self._unkept.extend(reports)
        if not self._unkept:
            return
        try:
            self._history.add_reports(self._unkept)
        except DBAPIError as error:
            log.warning("cannot keep %d reports yet: %s", len(self._unkept), str(error.orig).splitlines()[0])
        else:
            self._unkept.clear()
