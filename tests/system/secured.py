"""A real Kafka that lets in only who comes over TLS with a password; and the certificates for it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
import trustme
from confluent_kafka.admin import (
    AdminClient,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)
from cryptography.hazmat.primitives import serialization

import streams.kafka_files
from streams.broker import EmbeddedBroker
from streams.kafka_files import free_port

USER, PASSWORD = "headstream", "s3cret-of-kafka"
MECHANISM = "SCRAM-SHA-512"

GUARD = """\
ssl.keystore.type=PEM
ssl.keystore.location={keystore}
sasl.enabled.mechanisms=SCRAM-SHA-512
listener.name.sasl_ssl.{mechanism}.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
"""


class Secured(NamedTuple):
    """Where it is, and what to show and to trust there; `open` is the address of the test's own unguarded door."""

    address: str
    open: str
    ca_file: Path
    other_ca_file: Path


@contextmanager
def secured_kafka(folder: Path) -> Iterator[Secured]:
    """Beside its usual port it listens on a second one, with SASL_SSL and SCRAM."""
    authority, other = trustme.CA(), trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    other.cert_pem.write_to_path(folder / "other-ca.pem")
    issued = authority.issue_cert("127.0.0.1")
    key = serialization.load_pem_private_key(issued.private_key_pem.bytes(), None)
    pkcs8 = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    keystore = folder / "broker.pem"
    keystore.write_bytes(pkcs8 + b"".join(each.bytes() for each in issued.cert_chain_pems))
    port = free_port()
    plain, guarded = "PLAINTEXT://{host}:{ports.broker}", f"SASL_SSL://{{host}}:{port}"
    usual = streams.kafka_files.PROPERTIES
    properties = (
        usual.replace(plain, f"{plain},{guarded}")
        .replace("PLAINTEXT:PLAINTEXT\n", "PLAINTEXT:PLAINTEXT,SASL_SSL:SASL_SSL\n")
        .replace("auto.create", f"{GUARD.format(keystore=keystore, mechanism=MECHANISM.lower())}auto.create")
    )
    assert guarded in properties
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(streams.kafka_files, "PROPERTIES", properties)
        with EmbeddedBroker(folder / "kafka") as broker:
            admit = UserScramCredentialUpsertion(
                USER, ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 4096), PASSWORD.encode()
            )
            client = AdminClient({"bootstrap.servers": broker.address})
            client.alter_user_scram_credentials([admit])[USER].result(30)
            yield Secured(f"127.0.0.1:{port}", broker.address, folder / "ca.pem", folder / "other-ca.pem")
