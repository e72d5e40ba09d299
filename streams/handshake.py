"""The handshake with a broker in Kafka's own protocol: is it one, may we in, and where does it say that its cluster is.

Client libraries try again for long where a certificate or a password is wrong, and keep the reason to themselves; here
it is known after the first attempt, and ends in a sentence.
"""

from __future__ import annotations

import socket
import ssl
import struct
from collections.abc import Callable
from contextlib import closing
from typing import NamedTuple

from kafka.net.sasl import get_sasl_mechanism

from schemas.errors import ExplainedError
from streams.access import PLAINTEXT, Access

CONNECT_SECONDS = 3.0
LARGEST_ANSWER_BYTES = 1 << 20

# Key and version of the requests that we make.
METADATA = 3, 1
SASL_HANDSHAKE = 17, 1
SASL_AUTHENTICATE = 36, 0

UNSUPPORTED_MECHANISM, AUTHENTICATION_FAILED = 33, 58
NOT_SPOKEN = "what listens there does not speak Kafka's protocol, or only over TLS or to users (see kafka.security)"


class BrokerUnreachable(ExplainedError):
    """No broker of the cluster could be talked to in time."""

    def __init__(self, address: str, reason: str) -> None:
        self.address = address
        self.reason = reason
        super().__init__(f"the Kafka broker {address} cannot be used: {reason}")


class AccessRefused(BrokerUnreachable):
    """A broker was reached, and one of the two does not trust the other; trying again is no use."""


class Address(NamedTuple):
    """A host and a port, as Kafka writes them."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read host:port, with 9092 where no port is named; an IPv6 host stands in brackets.

        Raises:
            BrokerUnreachable: it is not of this form.
        """
        host, separator, port = text.strip().rpartition(":")
        if not separator or port.endswith("]"):
            host, port = text.strip(), "9092"
        if not host or not port.isdecimal() or not 0 < int(port) < 1 << 16:
            raise BrokerUnreachable(text, "a broker is written as host:port, such as kafka.example.org:9092")
        return cls(host.strip("[]"), int(port))


def advertised_addresses(
    address: Address, access: Access = PLAINTEXT, timeout: float = CONNECT_SECONDS
) -> list[Address]:
    """Where the broker at `address` says that the brokers of its cluster are; empty while it is not yet part of one.

    It is asked in Kafka's own protocol, since client libraries follow these addresses at once and keep to themselves
    which one they failed to reach.

    Raises:
        OSError: it cannot be connected to, or does not speak Kafka.
        AccessRefused: its certificate is not trusted, or it does not trust us.
    """
    with closing(_connected(address, access, timeout)) as connection:
        try:
            if access.sasl:
                _authenticate(connection, address, access)
            answer = _asked(connection, METADATA, struct.pack(">i", 0))
        except ssl.SSLError as error:
            if "ALERT" not in (error.reason or ""):
                raise
            # From TLS 1.3 on a broker says only after the handshake that it wants another certificate, or one at all.
            raise _tls_fails(address, access, error) from None
        (count,) = struct.unpack(">i", answer(4))
        return [_read_broker(answer) for _ in range(count)]


def connect_failure(address: Address) -> OSError | None:
    """Why nothing can be connected to there; None if it can."""
    try:
        socket.create_connection(address, CONNECT_SECONDS).close()
    except OSError as error:
        return error
    return None


def _connected(address: Address, access: Access, timeout: float) -> socket.socket:
    connection = socket.create_connection(address, timeout)
    if access.context is None:
        return connection
    try:
        return access.context.wrap_socket(connection, server_hostname=address.host)
    except ssl.SSLCertVerificationError as error:
        connection.close()
        raise AccessRefused(
            str(address),
            f"its certificate is not trusted ({error.verify_message}); set kafka.ca_file to the authority that signed "
            "it, and name the broker as its certificate does",
        ) from None
    except (ssl.SSLError, ConnectionError) as error:
        connection.close()
        raise _tls_fails(address, access, error) from None
    except OSError:
        connection.close()
        raise


def _tls_fails(address: Address, access: Access, error: OSError) -> AccessRefused:
    reason = getattr(error, "reason", None) or str(error)
    return AccessRefused(
        str(address),
        f"TLS fails ({reason}); kafka.security is {access.protocol.lower()}: does the broker speak TLS on this port, "
        "and does it ask for kafka.certificate_file?",
    )


def _authenticate(connection: socket.socket, address: Address, access: Access) -> None:
    """Show the password, as the mechanism has it."""
    answer = _asked(connection, SASL_HANDSHAKE, _text(access.mechanism.encode()))
    error, count = struct.unpack(">hi", answer(6))
    offered = [answer(length).decode() for _ in range(count) for (length,) in [struct.unpack(">h", answer(2))]]
    if error == UNSUPPORTED_MECHANISM:
        raise AccessRefused(
            str(address), f"it does not take {access.mechanism}, but {', '.join(offered)}; set kafka.mechanism"
        )
    mechanism = get_sasl_mechanism(access.mechanism)(
        host=address.host,
        security_protocol=access.protocol,
        sasl_mechanism=access.mechanism,
        sasl_plain_username=access.username,
        sasl_plain_password=access.password,
    )
    while not mechanism.is_done():
        token = mechanism.auth_bytes()
        answer = _asked(connection, SASL_AUTHENTICATE, struct.pack(">i", len(token)) + token)
        (error,) = struct.unpack(">h", answer(2))
        (length,) = struct.unpack(">h", answer(2))
        said = answer(length).decode(errors="replace") if length > 0 else ""
        if error:
            raise AccessRefused(
                str(address),
                f'it does not let user "{access.username}" in ({said or f"error {error}"}); correct kafka.username and '
                "kafka.password_file or kafka.password",
            )
        (length,) = struct.unpack(">i", answer(4))
        try:
            mechanism.receive(answer(length))
        except (ValueError, KeyError):
            raise AccessRefused(str(address), "it does not know the password itself, and may be another's") from None


def _text(value: bytes) -> bytes:
    return struct.pack(">h", len(value)) + value


def _asked(connection: socket.socket, request: tuple[int, int], body: bytes) -> Callable[[int], bytes]:
    """Send a request with correlation id 1 and no client id; returns what reads the answer's next so many bytes."""
    message = struct.pack(">hhih", *request, 1, -1) + body
    connection.sendall(struct.pack(">i", len(message)) + message)
    length, _correlation = struct.unpack(">ii", _received(connection, 8))
    if not 4 <= length <= LARGEST_ANSWER_BYTES:
        raise ConnectionError(NOT_SPOKEN)
    left = memoryview(_received(connection, length - 4))

    def read(count: int) -> bytes:
        nonlocal left
        if not 0 <= count <= len(left):
            raise ConnectionError(NOT_SPOKEN)
        found, left = bytes(left[:count]), left[count:]
        return found

    return read


def _received(connection: socket.socket, count: int) -> bytes:
    found = bytearray()
    while len(found) < count:
        part = connection.recv(count - len(found))
        if not part:
            raise ConnectionError(NOT_SPOKEN)
        found += part
    return bytes(found)


def _read_broker(read: Callable[[int], bytes]) -> Address:
    _node, host_length = struct.unpack(">ih", read(6))
    host = read(host_length).decode(errors="replace")
    port, rack_length = struct.unpack(">ih", read(6))
    read(max(rack_length, 0))
    return Address(host, port)
