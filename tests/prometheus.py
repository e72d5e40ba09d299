"""What is deployed for Prometheus and Grafana as their readers see it, and a Prometheus of the tests' own."""

from __future__ import annotations

import json
import re
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from streams.kafka_files import HOST, free_port
from tests.compose import ROOT

FOLDER = ROOT / "deploy" / "prometheus"
GRAFANA = ROOT / "deploy" / "grafana"

_NAME = re.compile(r"\b(?:headstream[\w:]*|process_\w+|up)\b(?!\s*=)")
_TEXT = re.compile(r'"[^"]*"')


def rules() -> list[dict[str, Any]]:
    """Recording rules and alerts, in their order."""
    groups = yaml.safe_load((FOLDER / "rules.yml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def panels() -> list[dict[str, Any]]:
    """The dashboard's panels, rows among them."""
    found: list[dict[str, Any]] = json.loads((GRAFANA / "dashboards" / "headstream.json").read_text())["panels"]
    return found


def expressions() -> list[str]:
    """Whatever is asked of Prometheus."""
    asked = [target["expr"] for panel in panels() for target in panel.get("targets", ())]
    return [*(rule["expr"] for rule in rules()), *asked]


def series_named() -> set[str]:
    """The series that rules and dashboard name."""
    return {name for expression in expressions() for name in _NAME.findall(_TEXT.sub('""', expression))}


@contextmanager
def running_prometheus(folder: Path, targets: Mapping[str, str]) -> Iterator[Prometheus]:
    """A real Prometheus with the deployed rules and jobs, which finds each job at the address given here."""
    deployed = yaml.safe_load((FOLDER / "prometheus.yml").read_text())
    jobs = [each["job_name"] for each in deployed["scrape_configs"]]
    deployed["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    deployed["rule_files"] = [str(FOLDER / "rules.yml")]
    deployed["scrape_configs"] = [
        {"job_name": job, "static_configs": [{"targets": [targets[job]]}]} for job in jobs if job in targets
    ]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(deployed))
    port = free_port()
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(
            [
                "prometheus",
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'prometheus'}",
                f"--web.listen-address={HOST}:{port}",
            ],
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        yield Prometheus(f"http://{HOST}:{port}")
    finally:
        process.terminate()
        process.wait(20)


class Prometheus:
    """One that runs, and what it knows."""

    def __init__(self, address: str) -> None:
        self._address = address

    def ask(self, query: str) -> list[dict[str, Any]]:
        """The series that an expression gives now; none while Prometheus is starting."""
        arguments = urllib.parse.urlencode({"query": query})
        try:
            with urllib.request.urlopen(f"{self._address}/api/v1/query?{arguments}", timeout=10) as answer:
                found: list[dict[str, Any]] = json.load(answer)["data"]["result"]
        except ConnectionError:
            return []
        except urllib.error.URLError:
            return []
        return found
