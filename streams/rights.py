"""Rights: what each user of a cluster must be allowed there, where the cluster asks (Kafka's ACLs), and no more.

The table of docs/security.md is this one, and a test runs the system with exactly these rights.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

from schemas.errors import ExplainedError

Kind = Literal["topic", "group", "transactional id"]

MISSING_SHOWN = 5


class Right(NamedTuple):
    """One operation, as Kafka's tools name it, on one resource; a `name` that ends in "*" is all that begin like it."""

    operation: str
    kind: Kind
    name: str

    def __str__(self) -> str:
        return f"{self.operation} on {self.kind} {self.name}"

    def covers(self, name: str) -> bool:
        return name.startswith(self.name[:-1]) if self.name.endswith("*") else name == self.name


# After the prefix. Kafka takes Read and Write to hold Describe.
_TOPICS: Mapping[str, Mapping[str, Sequence[str]]] = {
    "serve": {
        "Describe": ("*",),
        "Read": ("events.*", "requests", "items", "vectors", "weights", "erasures"),
        "Write": ("examples.*", "recommendations.*", "dead-letters"),
    },
    "learn": {
        "Describe": ("*",),
        "Read": ("examples.*", "items", "control", "erasures"),
        "Write": ("vectors", "weights", "drift", "dead-letters"),
    },
    "gateway": {
        "Describe": ("*",),
        "Read": ("recommendations.*", "control", "erasures", "dead-letters"),
        "Write": ("events.*", "requests", "items", "control", "erasures"),
        "DescribeConfigs": ("events.*", "requests", "examples.*", "recommendations.*", "erasures", "dead-letters"),
    },
    "operator": {
        "Describe": ("*",),
        "Read": ("recommendations.*", "items", "weights"),
        "Write": ("events.*", "items", "control", "erasures"),
        "DescribeConfigs": ("events.*", "requests", "examples.*", "recommendations.*", "erasures", "dead-letters"),
    },
    "publisher": {"Write": ("events.*", "requests", "items")},
    "consumer": {"Read": ("recommendations.*",)},
}
_GROUPS: Mapping[str, Sequence[str]] = {"serve": ("serve",), "learn": ("learn",)}
# GATEWAY's readers are of no group, but librdkafka wants a name for one, and looks for who coordinates it.
_NAMED_GROUPS: Mapping[str, Sequence[str]] = {"gateway": ("headstream-gateway*",)}
_TRANSACTIONAL_IDS: Mapping[str, Sequence[str]] = {"learn": ("learn",)}

USERS = tuple(_TOPICS)
"""The processes; whoever gives commands; and yours who publish and consume."""


def rights_of(user: str, prefix: str) -> Iterator[Right]:
    """What one of `USERS` needs where topics begin with `prefix`."""
    for operation, names in _TOPICS[user].items():
        yield from (Right(operation, "topic", f"{prefix}{name}") for name in names)
    yield from (Right("Read", "group", f"{prefix}{name}") for name in _GROUPS.get(user, ()))
    yield from (Right("Describe", "group", name) for name in _NAMED_GROUPS.get(user, ()))
    yield from (Right("Write", "transactional id", f"{prefix}{name}") for name in _TRANSACTIONAL_IDS.get(user, ()))


class RightsMissing(ExplainedError):
    """The cluster does not allow what is needed; trying again is no use."""

    def __init__(self, user: str, missing: Sequence[Right]) -> None:
        self.user, self.missing = user, tuple(missing)
        shown = ", ".join(map(str, missing[:MISSING_SHOWN]))
        more = f" and {len(missing) - MISSING_SHOWN} more" if len(missing) > MISSING_SHOWN else ""
        super().__init__(
            f"{user} may not do what is needed at the Kafka cluster: it lacks {shown}{more}. Let the "
            "cluster's administrator grant it (kafka-acls.sh); docs/security.md lists what each process needs"
        )
