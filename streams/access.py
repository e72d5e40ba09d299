"""Access to a Kafka cluster: the one place where settings become what each client library wants to be told.

Four libraries speak to Kafka here (librdkafka, aiokafka, Faust on top of it, kafka-python), each with words of its own.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from faust import SASLCredentials, SSLCredentials

from schemas.errors import ExplainedError
from schemas.settings import Kafka

MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")


class AccessUnusable(ExplainedError):
    """A file that the settings name for Kafka cannot be used."""

    def __init__(self, key: str, path: str, reason: str) -> None:
        self.key, self.path = key, path
        super().__init__(f'kafka.{key} is "{path}", which cannot be used: {reason}')


@dataclass(frozen=True)
class Access:
    """How the processes prove to Kafka who they are, and how Kafka proves it to them.

    Attributes:
        protocol: PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL.
        context: for TLS; None without.
        mechanism, username, password: for SASL; empty without.
        ca_file, certificate_file, key_file: what `context` was made of, for librdkafka, which makes its own.
    """

    protocol: str = "PLAINTEXT"
    context: ssl.SSLContext | None = None
    mechanism: str = ""
    username: str = ""
    password: str = field(default="", repr=False)
    ca_file: str = ""
    certificate_file: str = ""
    key_file: str = ""

    @property
    def sasl(self) -> bool:
        return self.protocol.startswith("SASL_")

    @property
    def user(self) -> str:
        """Who we are at the cluster, as far as we know it; empty for who comes without a name."""
        if self.sasl:
            return f'user "{self.username}" (kafka.username)'
        return "the owner of kafka.certificate_file" if self.certificate_file else ""


PLAINTEXT = Access()


class Cluster(str):
    """The addresses of a cluster, host:port with "," between, that know how one gets access there.

    It is a string, so that whatever names the cluster (a message, a file, a child's environment) shows the addresses
    and can never show a secret. A string that is none of these is a cluster without protection.
    """

    access: Access

    def __new__(cls, addresses: str, access: Access = PLAINTEXT) -> Cluster:
        made = super().__new__(cls, addresses)
        made.access = access
        return made


def access_to(broker: str) -> Access:
    """How one gets access to a cluster."""
    return broker.access if isinstance(broker, Cluster) else PLAINTEXT


def cluster(kafka: Kafka, addresses: str = "") -> Cluster:
    """The configured cluster, or the one at these addresses, with the access that the settings give.

    Raises:
        AccessUnusable: a file that the settings name is missing or is not what it should be.
    """
    return Cluster(addresses or kafka.broker, _access(kafka))


def _access(kafka: Kafka) -> Access:
    protocol = kafka.security.upper()
    sasl = protocol.startswith("SASL_")
    return Access(
        protocol=protocol,
        context=_context(kafka) if protocol.endswith("SSL") else None,
        mechanism=kafka.mechanism if sasl else "",
        username=kafka.username if sasl else "",
        password=_password(kafka) if sasl else "",
        ca_file=kafka.ca_file,
        certificate_file=kafka.certificate_file,
        key_file=kafka.key_file or kafka.certificate_file,
    )


def _password(kafka: Kafka) -> str:
    if not kafka.password_file:
        return kafka.password
    try:
        password = Path(kafka.password_file).read_text().rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise AccessUnusable("password_file", kafka.password_file, _reason(error)) from None
    if not password:
        raise AccessUnusable("password_file", kafka.password_file, "it is empty")
    return password


def _context(kafka: Kafka) -> ssl.SSLContext:
    """Checks the brokers' certificates and the names in them; TLS 1.2 or newer."""
    try:
        # Without a file of one's own, the authorities that this machine trusts.
        context = ssl.create_default_context(cafile=kafka.ca_file or None)
    except OSError as error:
        raise AccessUnusable(
            "ca_file", kafka.ca_file, f"{_reason(error)}; a file of PEM certificates is wanted"
        ) from None
    if kafka.certificate_file:
        for key, path in (("certificate_file", kafka.certificate_file), ("key_file", kafka.key_file)):
            if path and not Path(path).is_file():
                raise AccessUnusable(key, path, "there is no such file")
        try:
            # An encrypted key would ask for its password on the terminal.
            context.load_cert_chain(kafka.certificate_file, kafka.key_file or None, password="")
        except OSError as error:
            wanted = "a PEM certificate and the key of it, not encrypted, are wanted"
            raise AccessUnusable("certificate_file", kafka.certificate_file, f"{_reason(error)}; {wanted}") from None
    return context


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


# What each library is told


def librdkafka(broker: str) -> dict[str, Any]:
    """For producers, consumers and administrators of confluent-kafka."""
    access = access_to(broker)
    told = {
        "bootstrap.servers": str(broker),
        "security.protocol": access.protocol,
        "ssl.ca.location": access.ca_file if access.context else "",
        "ssl.certificate.location": access.certificate_file if access.context else "",
        "ssl.key.location": access.key_file if access.context else "",
        "sasl.mechanism": access.mechanism,
        "sasl.username": access.username,
        "sasl.password": access.password,
    }
    return {key: value for key, value in told.items() if value}


def aiokafka(broker: str) -> dict[str, Any]:
    """For consumers of aiokafka."""
    return {"bootstrap_servers": str(broker), **_python(access_to(broker))}


def kafka_python(broker: str) -> dict[str, Any]:
    """For consumers and administrators of kafka-python."""
    return {"bootstrap_servers": str(broker).split(","), **_python(access_to(broker))}


def _python(access: Access) -> dict[str, Any]:
    """The words that aiokafka has from kafka-python."""
    told: dict[str, Any] = {"security_protocol": access.protocol}
    if access.context is not None:
        told["ssl_context"] = access.context
    if access.sasl:
        told |= {
            "sasl_mechanism": access.mechanism,
            "sasl_plain_username": access.username,
            "sasl_plain_password": access.password,
        }
    return told


def faust(broker: str) -> dict[str, Any]:
    """For Faust apps."""
    access = access_to(broker)
    told: dict[str, Any] = {"broker": [f"kafka://{address}" for address in broker.split(",")]}
    if access.sasl:
        told["broker_credentials"] = SASLCredentials(
            username=access.username,
            password=access.password,
            mechanism=access.mechanism,
            ssl_context=access.context,
        )
    elif access.context is not None:
        told["broker_credentials"] = SSLCredentials(access.context)
    return told
