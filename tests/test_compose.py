"""The compose file is what it says: its commands are ours, and its environment is understood.

That they run together is seen in `system/test_compose.py` and `system/test_counting.py`.
"""

from __future__ import annotations

import re

import pytest
import yaml

from schemas.configuration import load
from streams.cli import app
from tests.compose import OURS, ROOT, compose, services
from tests.prometheus import FOLDER

OTHERS = ("kafka", "postgres", "prometheus", "grafana")


def test_all_parts_are_there() -> None:
    assert set(services()) == {*OURS, *OTHERS}


@pytest.mark.parametrize("name", OURS)
def test_a_service_runs_a_command_that_a_person_would_type(name: str) -> None:
    program, command = services()[name]["command"]
    assert program == "headstream"
    assert command == name.removesuffix("-cuda")
    assert command in {each.name or each.callback.__name__ for each in app.registered_commands if each.callback}


@pytest.mark.parametrize("name", OURS)
def test_its_environment_is_a_configuration(name: str) -> None:
    settings = load(None, services()[name]["environment"], {})
    assert settings.kafka.broker == "kafka:9092"
    assert settings.database.url.startswith("postgresql+psycopg://headstream:headstream@postgres/")


@pytest.mark.parametrize("name", [*OURS, *OTHERS])
def test_every_service_has_a_health_check_limits_a_volume_and_starts_again(name: str) -> None:
    service = services()[name]
    assert service["restart"] == "unless-stopped"
    assert set(service["healthcheck"]) >= {"test", "interval", "timeout", "retries"}
    assert set(service["deploy"]["resources"]["limits"]) == {"cpus", "memory"}
    named = {each.partition(":")[0] for each in service["volumes"] if not each.startswith(".")}
    assert len(named) == 1
    assert named <= compose()["volumes"].keys()
    for each in service["volumes"]:
        if each.startswith("."):
            assert (ROOT / each.partition(":")[0]).is_dir()


@pytest.mark.parametrize("name", [*OURS, *OTHERS])
def test_what_is_published_is_published_on_loopback_alone(name: str) -> None:
    assert all(port.startswith("127.0.0.1:") for port in services()[name].get("ports", ()))


def test_learning_is_on_one_kind_of_device_in_each_profile_and_found_under_one_name() -> None:
    cpu, cuda = services()["learn"], services()["learn-cuda"]
    assert (cpu["profiles"], cuda["profiles"]) == (["cpu"], ["cuda"])
    devices = {name: load(None, services()[name]["environment"], {}).learn.device for name in ("learn", "learn-cuda")}
    assert devices == {"learn": "cpu", "learn-cuda": "cuda"}
    (gpu,) = cuda["deploy"]["resources"]["reservations"]["devices"]
    assert (gpu["driver"], gpu["capabilities"]) == ("nvidia", ["gpu"])
    assert "reservations" not in cpu["deploy"]["resources"]
    assert cuda["networks"]["default"]["aliases"] == ["learn"]
    assert cuda["volumes"] == cpu["volumes"]


def test_prometheus_looks_where_the_services_answer() -> None:
    jobs = {
        each["job_name"]: each for each in yaml.safe_load((FOLDER / "prometheus.yml").read_text())["scrape_configs"]
    }
    serve, learn, gateway = (load(None, services()[name]["environment"], {}) for name in ("serve", "learn", "gateway"))
    (names,) = jobs["headstream-serve"]["dns_sd_configs"]
    assert (names["names"], names["port"]) == (["serve"], serve.metrics.serve_port)
    assert jobs["headstream-learn"]["static_configs"] == [{"targets": [f"learn:{learn.metrics.learn_port}"]}]
    assert jobs["headstream-gateway"]["static_configs"] == [{"targets": [f"gateway:{gateway.gateway.port}"]}]
    assert gateway.gateway.names == "gateway"  # it answers to no other name but its own


def test_no_image_is_whatever_is_newest() -> None:
    images = [service["image"] for service in services().values() if "image" in service]
    assert all(re.fullmatch(r"[\w./-]+:v?\d[\w.-]*", image) for image in images)


def test_the_image_holds_every_package_of_ours() -> None:
    dockerfile = (ROOT / "deploy" / "Dockerfile").read_text()
    for package in ("schemas", "learner", "index", "streams"):
        assert f"COPY {package} {package}" in dockerfile
