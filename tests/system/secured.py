"""A real Kafka that lets in only who proves who they are, and allows them only what was granted; and certificates."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import trustme
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)
from cryptography.hazmat.primitives import serialization

import streams.kafka_files
from streams.broker import EmbeddedBroker
from streams.kafka_files import free_port
from streams.rights import Right

USER, PASSWORD = "headstream", "s3cret-of-kafka"
PEOPLE = (USER, "serve", "learn", "gateway", "operator", "publisher", "consumer", "newcomer")
"""All of them have the same password, and a certificate; the first may do everything."""
WAYS = ("SCRAM-SHA-512", "SCRAM-SHA-256", "PLAIN", "certificate")

GUARD = """\
ssl.keystore.type=PEM
ssl.keystore.location={folder}/broker.pem
ssl.truststore.type=PEM
ssl.truststore.location={folder}/ca.pem
listener.name.ssl.ssl.client.auth=required
listener.name.ssl.ssl.principal.mapping.rules=RULE:^.*CN=([a-z]+).*$/$1/,DEFAULT
sasl.enabled.mechanisms=SCRAM-SHA-512,SCRAM-SHA-256,PLAIN
listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config={module}.scram.ScramLoginModule required;
listener.name.sasl_ssl.scram-sha-256.sasl.jaas.config={module}.scram.ScramLoginModule required;
listener.name.sasl_ssl.plain.sasl.jaas.config={module}.plain.PlainLoginModule required {passwords};
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS;User:{user}
"""
AUDIT_FILE = "audit.log"
AUDIT = {
    "</Appenders>": f'<File name="audit" fileName="{AUDIT_FILE}"><PatternLayout pattern="%m%n"/></File>',
    "</Loggers>": '<Logger name="kafka.authorizer.logger" level="DEBUG" additivity="false">'
    '<AppenderRef ref="audit"/></Logger>',
}
"""All that anybody was allowed or denied; it grows by some 50 KB a second."""
SAID = re.compile(
    r"Principal = User:(\w+) is (Allowed|Denied) operation = (\w+) from .* on resource = (\w+):LITERAL:(\S+)"
)


class Secured(NamedTuple):
    """Where it is, and what to show and to trust there.

    Attributes:
        address: for who has a password; `certified` for who has a certificate.
        open: the test's own unguarded door, behind which everything is allowed.
        folder: with `NAME.pem`, certificate and key of each of `PEOPLE`.
    """

    address: str
    certified: str
    open: str
    folder: Path

    @property
    def ca_file(self) -> Path:
        return self.folder / "ca.pem"

    @property
    def other_ca_file(self) -> Path:
        return self.folder / "other-ca.pem"

    def settings(self, way: str, user: str = USER) -> dict[str, str]:
        """The settings, below `kafka`, with which somebody gets in on one of `WAYS`."""
        trust = {"ca_file": str(self.ca_file)}
        if way == "certificate":
            return {
                "broker": self.certified,
                "security": "ssl",
                "certificate_file": str(self.folder / f"{user}.pem"),
                **trust,
            }
        who = {"security": "sasl_ssl", "mechanism": way, "username": user, "password": PASSWORD}
        return {"broker": self.address, **who, **trust}

    def variables(self, way: str, user: str = USER) -> dict[str, str]:
        given = {"username": "", "password": "", "certificate_file": ""} | self.settings(way, user)
        return {f"HEADSTREAM_KAFKA_{key.upper()}": value for key, value in given.items()}

    def grant(self, user: str, rights: Sequence[Right]) -> None:
        client = AdminClient({"bootstrap.servers": self.open})
        for done in client.create_acls([AclBinding(*_named(user, right)) for right in rights]).values():
            done.result(30)

    def withdraw(self, user: str, rights: Sequence[Right]) -> None:
        client = AdminClient({"bootstrap.servers": self.open})
        for done in client.delete_acls([AclBindingFilter(*_named(user, right)) for right in rights]).values():
            assert len(done.result(30)) == 1

    def asked(self) -> set[tuple[str, bool, Right]]:
        """What the cluster was asked for until now: by whom, whether it was allowed, and what."""
        log = (self.folder / "kafka" / AUDIT_FILE).read_text()
        kinds = {"Topic": "topic", "Group": "group", "TransactionalId": "transactional id"}
        operations = {"DESCRIBE_CONFIGS": "DescribeConfigs"}
        return {
            (user, said == "Allowed", Right(operations.get(what, what.capitalize()), kinds.get(kind, kind), name))
            for user, said, what, kind, name in SAID.findall(log)
        }


def _named(user: str, right: Right) -> tuple[Any, ...]:
    kind = {"topic": ResourceType.TOPIC, "group": ResourceType.GROUP, "transactional id": ResourceType.TRANSACTIONAL_ID}
    many = right.name.endswith("*")
    return (
        kind[right.kind],
        right.name[:-1] if many else right.name,
        ResourcePatternType.PREFIXED if many else ResourcePatternType.LITERAL,
        f"User:{user}",
        "*",
        AclOperation[re.sub("(?<=[a-z])(?=[A-Z])", "_", right.operation).upper()],
        AclPermissionType.ALLOW,
    )


@contextmanager
def secured_kafka(folder: Path) -> Iterator[Secured]:
    """Beside its usual port it listens on two more: with SASL_SSL, and with TLS for who has a certificate."""
    authority, other = trustme.CA(), trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    other.cert_pem.write_to_path(folder / "other-ca.pem")
    _write_certificate(authority.issue_cert("127.0.0.1"), folder / "broker.pem")
    for name in PEOPLE:
        _write_certificate(authority.issue_cert(f"{name}.example.org", common_name=name), folder / f"{name}.pem")
    with_password, with_certificate = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
    passwords = " ".join(f'user_{name}="{PASSWORD}"' for name in PEOPLE)
    module = "org.apache.kafka.common.security"
    guard = GUARD.format(folder=folder, module=module, passwords=passwords, user=USER)
    plain = "PLAINTEXT://{host}:{ports.broker}"
    properties = (
        streams.kafka_files.PROPERTIES.replace(plain, f"{plain},SASL_SSL://{with_password},SSL://{with_certificate}")
        .replace("PLAINTEXT:PLAINTEXT\n", "PLAINTEXT:PLAINTEXT,SASL_SSL:SASL_SSL,SSL:SSL\n")
        .replace("auto.create", f"{guard}auto.create")
    )
    assert properties.count(with_certificate) == 2
    audited = streams.kafka_files.LOG_CONFIGURATION
    for end, addition in AUDIT.items():
        audited = audited.replace(end, f"{addition}{end}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(streams.kafka_files, "PROPERTIES", properties)
        patch.setattr(streams.kafka_files, "LOG_CONFIGURATION", audited)
        with EmbeddedBroker(folder / "kafka") as broker:
            client = AdminClient({"bootstrap.servers": broker.address})
            # Kafka takes one change of a person at a time.
            for mechanism in (ScramMechanism.SCRAM_SHA_256, ScramMechanism.SCRAM_SHA_512):
                credential = ScramCredentialInfo(mechanism, 4096)
                admitted = [UserScramCredentialUpsertion(name, credential, PASSWORD.encode()) for name in PEOPLE]
                for done in client.alter_user_scram_credentials(admitted).values():
                    done.result(30)
            yield Secured(with_password, with_certificate, broker.address, folder)


def _write_certificate(issued: trustme.LeafCert, path: Path) -> None:
    """Key and certificate in one file, the key as Java wants it."""
    key = serialization.load_pem_private_key(issued.private_key_pem.bytes(), None)
    pkcs8 = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(pkcs8 + b"".join(each.bytes() for each in issued.cert_chain_pems))
