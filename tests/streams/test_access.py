"""Access: each library is told the same in its own words, and no printed form shows the secret."""

from __future__ import annotations

import json
import ssl
from pathlib import Path

import pytest
import trustme

from schemas.configuration import ConfigurationError, load
from schemas.settings import Database, Gateway, Kafka, Settings
from streams.access import AccessUnusable, Cluster, aiokafka, cluster, faust, kafka_python, librdkafka

SECRET = "s3cret-of-kafka"
ADDRESSES = "a:1,b:2"


@pytest.fixture(scope="module")
def ca_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ca") / "ca.pem"
    trustme.CA().cert_pem.write_to_path(path)
    return path


def scram(ca_file: Path) -> Kafka:
    return Kafka(broker=ADDRESSES, security="sasl_ssl", ca_file=str(ca_file), username="eve", password=SECRET)


def test_a_plain_string_is_a_cluster_without_protection() -> None:
    assert librdkafka(ADDRESSES) == {"bootstrap.servers": ADDRESSES, "security.protocol": "PLAINTEXT"}
    assert aiokafka(ADDRESSES) == {"bootstrap_servers": ADDRESSES, "security_protocol": "PLAINTEXT"}
    assert kafka_python(ADDRESSES) == {"bootstrap_servers": ["a:1", "b:2"], "security_protocol": "PLAINTEXT"}
    assert faust(ADDRESSES) == {"broker": ["kafka://a:1", "kafka://b:2"]}


def test_every_library_is_told_of_tls_and_password(ca_file: Path) -> None:
    there = cluster(scram(ca_file))
    assert librdkafka(there) == {
        "bootstrap.servers": ADDRESSES,
        "security.protocol": "SASL_SSL",
        "ssl.ca.location": str(ca_file),
        "sasl.mechanism": "SCRAM-SHA-512",
        "sasl.username": "eve",
        "sasl.password": SECRET,
    }
    for told in (aiokafka(there), kafka_python(there)):
        assert (told["security_protocol"], told["sasl_mechanism"]) == ("SASL_SSL", "SCRAM-SHA-512")
        assert (told["sasl_plain_username"], told["sasl_plain_password"]) == ("eve", SECRET)
    credentials = faust(there)["broker_credentials"]
    assert (credentials.protocol.value, credentials.mechanism.value) == ("SASL_SSL", "SCRAM-SHA-512")
    assert (credentials.username, credentials.password) == ("eve", SECRET)


def test_certificates_and_the_names_in_them_are_always_checked(ca_file: Path) -> None:
    context = cluster(scram(ca_file)).access.context
    assert context is not None
    assert context.check_hostname
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2


def test_a_certificate_of_our_own_is_shown(tmp_path: Path, ca_file: Path) -> None:
    issued = trustme.CA().issue_cert("headstream")
    issued.private_key_and_cert_chain_pem.write_to_path(tmp_path / "both.pem")
    both = str(tmp_path / "both.pem")
    told = librdkafka(cluster(Kafka(broker="a:1", security="ssl", ca_file=str(ca_file), certificate_file=both)))
    assert (told["ssl.certificate.location"], told["ssl.key.location"]) == (both, both)


def test_a_password_may_stand_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "password").write_text(f"{SECRET}\n")
    kafka = Kafka(broker="a:1", security="sasl_plaintext", username="eve", password_file=str(tmp_path / "password"))
    assert cluster(kafka).access.password == SECRET


@pytest.mark.parametrize("key", ["ca_file", "certificate_file", "password_file"])
def test_a_file_that_cannot_be_used_is_named_with_its_key(tmp_path: Path, key: str) -> None:
    missing = str(tmp_path / "none")
    kafka = Kafka(**{"broker": "a:1", "security": "sasl_ssl", "username": "eve", key: missing})
    with pytest.raises(AccessUnusable, match=rf'kafka\.{key} is ".*none", which cannot be used: .*[Nn]o such file'):
        cluster(kafka)


def test_a_file_that_holds_no_certificate_is_said_to_hold_none(tmp_path: Path) -> None:
    (tmp_path / "empty.pem").write_text("")
    with pytest.raises(AccessUnusable, match="a file of PEM certificates is wanted"):
        cluster(Kafka(broker="a:1", security="ssl", ca_file=str(tmp_path / "empty.pem")))


def test_no_printed_form_shows_a_secret(ca_file: Path) -> None:
    there: Cluster = cluster(scram(ca_file))
    token, url = "s3cret-of-gateway", "postgresql+psycopg://u:s3cret-of-database@h/d"
    settings = Settings(kafka=scram(ca_file), gateway=Gateway(token=token), database=Database(url=url))
    printed = [str(there), repr(there), f"{there}", json.dumps(there), repr(there.access), repr(settings)]
    printed.append(repr(faust(there)["broker_credentials"]))
    assert "s3cret" not in "".join(printed)
    assert "username='eve'" in repr(settings)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"security": "sasl_ssl"}, "asks for a user and a password"),
        ({"security": "sasl_ssl", "username": "eve", "password": "p", "password_file": "f"}, "keep one of them"),
        ({"security": "sasl_plaintext", "mechanism": "PLAIN", "username": "e", "password": "p"}, "for all to read"),
        ({"username": "eve"}, "makes no use of kafka.username"),
        ({"ca_file": "f"}, "makes no use of kafka.ca_file"),
        ({"security": "ssl", "key_file": "f"}, "set kafka.certificate_file too"),
        ({"security": "ssl", "broker": ""}, "name a cluster in kafka.broker"),
        ({"security": "tls"}, "kafka.security is"),
    ],
)
def test_what_cannot_work_together_is_refused_with_a_sentence(given: dict[str, str], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        load(None, {}, {f"kafka.{key}": value for key, value in {"broker": "a:1", **given}.items()})


@pytest.mark.parametrize("key", ["kafka.password", "gateway.token"])
def test_a_secret_of_the_wrong_type_is_not_repeated(tmp_path: Path, key: str) -> None:
    section, name = key.split(".")
    (tmp_path / "h.toml").write_text(f"[{section}]\n{name} = 4711_4711\n")
    with pytest.raises(ConfigurationError, match=rf"{key} is \*\*\*") as refused:
        load(tmp_path / "h.toml", {}, {})
    assert "4711" not in str(refused.value)
