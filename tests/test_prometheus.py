"""What is deployed for Prometheus and Grafana is valid, and every alert is played.

That a real Prometheus finds what they name is seen in `system/test_exposure.py`.
"""

from __future__ import annotations

import itertools
import subprocess

import yaml

from tests.prometheus import FOLDER, GRAFANA, panels, rules, series_named


def promtool(*arguments: str) -> None:
    done = subprocess.run(["promtool", *arguments], cwd=FOLDER, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def test_promtool_takes_the_configuration_and_the_rules() -> None:
    promtool("check", "config", "prometheus.yml")
    promtool("check", "rules", "--lint-fatal", "rules.yml")


def test_every_alert_fires_when_it_should_and_says_what_to_do() -> None:
    promtool("test", "rules", "rules_test.yml")
    played = yaml.safe_load((FOLDER / "rules_test.yml").read_text())
    fired = {each["alertname"] for test in played["tests"] for each in test["alert_rule_test"] if each["exp_alerts"]}
    alerts = {rule["alert"]: rule for rule in rules() if "alert" in rule}
    assert fired == set(alerts)
    for alert in alerts.values():
        assert alert["labels"]["severity"] in ("page", "note")
        assert alert["annotations"]["summary"]
        assert alert["annotations"]["remedy"].endswith(".")


def test_every_panel_says_what_it_shows_in_which_unit_and_overlaps_no_other() -> None:
    shown = panels()
    assert len({panel["id"] for panel in shown}) == len(shown)
    for panel in shown:
        assert panel["title"]
        if panel["type"] != "row":
            assert panel["description"].endswith(".")
            assert panel["fieldConfig"]["defaults"]["unit"]
            assert panel["targets"]
    cells = [
        {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        for at in (panel["gridPos"] for panel in shown)
    ]
    assert all(one.isdisjoint(other) for one, other in itertools.combinations(cells, 2))
    assert all(x < 24 for each in cells for x, _ in each)


def test_the_dashboard_asks_the_data_source_that_is_provisioned() -> None:
    (source,) = yaml.safe_load((GRAFANA / "provisioning" / "datasources" / "prometheus.yml").read_text())["datasources"]
    assert {panel["datasource"]["uid"] for panel in panels() if "datasource" in panel} == {source["uid"]}


def test_rules_and_dashboard_name_no_series_of_others() -> None:
    assert all(name.startswith(("headstream", "process_")) or name == "up" for name in series_named())
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    assert {name for name in series_named() if ":" in name} <= recorded
