"""Targets: each decoder of Headstream with inputs that it takes, the errors that it may raise, and what must hold."""

from __future__ import annotations

import gzip
import json
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from safetensors.torch import save
from starlette.datastructures import QueryParams

from learner.checkpoint import FACTS, MANIFEST, TENSORS, CheckpointMismatch, DamagedCheckpoint, read_checkpoint
from learner.facts import Facts
from learner.items import ItemTable
from learner.ranking import ScenarioModel
from schemas.configuration import ConfigurationError, load
from schemas.control import decode_control
from schemas.decoding import CODES, MAX_ID_BYTES, Invalid
from schemas.errors import ExplainedError
from schemas.events import decode_event
from schemas.items import MAX_NAMES, MAX_TEXT_CHARACTERS, decode_item, decode_item_key
from schemas.recommendations import MAX_K, MAX_REQUEST_LIST, decode_request
from schemas.records import Example, OtherVersion, Weights, decode_example, decode_item_vector, decode_weights, encode
from schemas.reports import dead_letter_headers, decode_erasure
from schemas.settings import Model, Scenario, Settings
from schemas.topics import Topics
from streams.gateway.calls import CALLS
from streams.gateway.endpoint import read_query
from streams.gateway.intake import MOST_RECORDS, split
from streams.gateway.refusal import Refusal
from streams.intake import Intake
from streams.mirror import Mirror
from streams.route import choose_route, look_through
from streams.snapshot import SnapshotRefused, read_snapshot
from streams.sources import open_history
from streams.tensor_file import DamagedFile, Sliced, read_tensors, write_tensors
from streams.users import User, read_user

RECEIVED = 1_700_000_000.0
WEIGHTS = {"view": 1.0, "like": 2.0, "hate": -1.0}
SETTINGS = Settings(
    scenarios={"shop": Scenario(events=WEIGHTS), "video": Scenario(events=WEIGHTS)},
    model=Model(dimension=8, heads=1, adapter_rank=1, mixer_units=2, neighbours=4, items=50, neural_candidates=5,
                covisited_candidates=5, popular_candidates=5),
)  # fmt: skip
MOST_ROWS = 5_000
"""Rows of a file that are read: a file may be long, and each row is like the others."""

Read = Callable[[bytes, Path], object]


@dataclass(frozen=True)
class Target:
    """A decoder.

    Attributes:
        good: inputs that it takes.
        read: hands it an input, and a folder for files; it may assert what must hold of what comes out.
        errors: what it may raise, each of them with a sentence that says what is wrong.
    """

    good: Sequence[bytes]
    read: Read
    errors: tuple[type[Exception], ...] = ()


def _lines(*records: Mapping[str, Any]) -> bytes:
    return b"".join(json.dumps(record).encode() + b"\n" for record in records)


def _json(**fields: Any) -> bytes:
    return json.dumps(fields).encode()


# What users publish


def _within_limits(found: Any) -> None:
    """A refusal that can be told, or a value that every later step can hold: it crosses Kafka and SQL as it is."""
    if isinstance(found, Invalid):
        assert found.code in CODES, found.code
        assert dead_letter_headers(found, "topic", 0, 0, 0)
        assert len(found.message) < 2_000, len(found.message)
        return
    for field, value in ({"key": found} if isinstance(found, str) else msgspec.structs.asdict(found)).items():
        for each in value if isinstance(value, tuple) else (value,):
            if isinstance(each, str):
                assert "\0" not in each, field
                limit = 4 * MAX_TEXT_CHARACTERS if field in ("title", "text", "reason", "author") else MAX_ID_BYTES
                assert len(each.encode()) <= limit, field
            assert not isinstance(each, float) or math.isfinite(each), field
            assert not isinstance(each, int) or abs(each) < 1 << 63, field
        assert not isinstance(value, tuple) or len(value) <= max(MAX_NAMES, MAX_REQUEST_LIST), field
    if not isinstance(found, str):
        assert msgspec.msgpack.encode(found)


def _event(content: bytes, _folder: Path) -> None:
    _within_limits(decode_event(content, RECEIVED, "shop", WEIGHTS, Counter()))


def _item(content: bytes, _folder: Path) -> None:
    _within_limits(decode_item(content, RECEIVED, Counter()))


def _item_key(content: bytes, _folder: Path) -> None:
    _within_limits(decode_item_key(content))


def _request(content: bytes, _folder: Path) -> None:
    found = decode_request(content, Counter())
    _within_limits(found)
    assert isinstance(found, Invalid) or found.k is None or 1 <= found.k <= MAX_K


def _erasure(content: bytes, _folder: Path) -> None:
    _within_limits(decode_erasure(content, RECEIVED, Counter()))


def _order(content: bytes, _folder: Path) -> None:
    _within_limits(decode_control(content, RECEIVED, Counter()))


# What people write


def _configuration(content: bytes, folder: Path) -> None:
    file = folder / "headstream.toml"
    file.write_bytes(content)
    _settings_hold(load(file, {}, {}))


def _environment(content: bytes, _folder: Path) -> None:
    """Lines of NAME=VALUE."""
    pairs = (line.partition(b"=")[::2] for line in content.split(b"\n"))
    environment = {
        name.decode(errors="surrogateescape"): value.decode(errors="surrogateescape") for name, value in pairs
    }
    _settings_hold(load(None, environment, {}))


def _settings_hold(settings: Settings) -> None:
    assert settings.scenarios
    assert all(topic.partitions >= 1 for topic in Topics(settings).all())
    assert all(math.isfinite(weight) for each in settings.scenarios.values() for weight in each.events.values())


def _rows(ending: str) -> Read:
    def read(content: bytes, folder: Path) -> None:
        file = folder / f"events.{ending}"
        file.write_bytes(content)
        history = open_history(str(file), items=None, event=None)
        route = choose_route(history, look_through(history.events()), SETTINGS, "shop")
        intake = Intake(SETTINGS, route, look_through(()))
        for row in islice(history.events(), MOST_ROWS):
            taken = intake.event(row)
            if not isinstance(taken, Invalid):
                _within_limits(taken.event)
            intake.item(row)

    return read


EVENTS = [
    {"user_id": "u", "item_id": "i", "event": "view", "timestamp": 5, "scenario": "shop"},
    {"user_id": 42, "item_id": "i/2", "event": "like", "timestamp": "2022-06-24 21:20:11", "scenario": "video"},
]
CSV = b'UserId,ItemId,event,Timestamp,value\nu,"i,1",view,2022-06-24 21:20:11,3.5\n42,i2,like,1700000000,\n'


def _parquet() -> bytes:
    import pyarrow
    import pyarrow.parquet

    sink = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(
        pyarrow.Table.from_pylist([{**each, "user_id": "u", "timestamp": 5} for each in EVENTS]), sink
    )
    return bytes(sink.getvalue())


# What comes over HTTP


def _body(content: bytes, _folder: Path) -> None:
    records = split(content)
    assert 1 <= len(records) <= MOST_RECORDS
    assert sum(map(len, records)) <= len(content)
    for record in records[:100]:
        _within_limits(decode_event(record, RECEIVED, "shop", WEIGHTS, Counter()))


def _query(content: bytes, _folder: Path) -> None:
    given = QueryParams(content)
    for query in {call.query for call in CALLS}:
        try:
            assert isinstance(read_query(given, query), query)
        except Refusal as refusal:
            assert refusal.status == 400
            assert len(refusal.response.body) < 4 * len(content) + 4_000


# What our own processes say to each other


def _user_state(content: bytes, _folder: Path) -> None:
    read_user(content)


def _example(content: bytes, _folder: Path) -> None:
    decode_example(content)


@dataclass
class _Record:
    key: bytes | None
    value: bytes | None
    timestamp: int = int(RECEIVED * 1000)
    headers: tuple[tuple[str, bytes | None], ...] = ()


def _vector(content: bytes, _folder: Path) -> None:
    decode_item_vector(content)
    Mirror(SETTINGS, torch.device("cpu")).take_vectors([_Record(b"i", content)], 1)


def _weights(content: bytes, _folder: Path) -> None:
    decode_weights(content)
    mirror = Mirror(SETTINGS, torch.device("cpu"))
    mirror.take_weights([_Record(b"shop", content)])
    mirror.settle()
    mirror.head("shop").model  # noqa: B018


def _table() -> ItemTable:
    table = ItemTable(list(SETTINGS.scenarios), SETTINGS.model)
    table.vectors[table.add("i")] = 0.5
    return table


def _good_weights() -> bytes:
    tensors = ScenarioModel.blank(SETTINGS.model).dump()
    return encode(
        Weights(
            scenario="shop", lineage="l", version=1, step=1, published_at=RECEIVED, clock=0.0, scenario_clock=0.0,
            vectors_through=0, published_with=["shop"], trained_through={"t:0": 1}, recall=None, tested=0, hits=0,
            examples=0, tensors=tensors,
        )
    )  # fmt: skip


# What lies on disk


def _tensor_file(content: bytes, folder: Path) -> None:
    file = folder / "file.safetensors"
    file.write_bytes(content)
    read_tensors(file)


def _good_tensor_file() -> bytes:
    from tempfile import TemporaryDirectory

    with TemporaryDirectory() as folder:
        file = Path(folder) / "good"
        write_tensors(file, b'{"a": 1}', [Sliced("t", torch.float32, (2, 3), [torch.ones(2, 3)])])
        return file.read_bytes()


def _good_snapshot() -> tuple[bytes, dict[str, torch.Tensor], dict[str, Any]]:
    from tempfile import TemporaryDirectory

    from streams.snapshot import made_for, write_snapshot

    topics = Topics(SETTINGS)
    mirror = Mirror(SETTINGS, torch.device("cpu"))
    mirror.take_items([_Record(b"i", _json(item_id="i", title="A title"))])
    mirror.take_vectors([_Record(b"i", encode(_table().describe("i", fresh=True)))], 1)
    purpose = made_for(SETTINGS, {topics.items: "a", topics.vectors: "b"})
    with TemporaryDirectory() as folder:
        file = Path(folder) / "good"
        positions = {(topics.items, 0): 1, (topics.vectors, 0): mirror.sequence}
        write_snapshot(file, purpose, mirror.note(), positions, RECEIVED)
        content = read_tensors(file)
        return content.facts, {name: tensor.clone() for name, tensor in content.tensors.items()}, purpose


_SNAPSHOT_FACTS, _SNAPSHOT_TENSORS, _PURPOSE = _good_snapshot()


def _snapshot(part: str) -> Read:
    """One part is the input, and the sum of all is right: as in a file that another program wrote, or an older one."""

    def read(content: bytes, folder: Path) -> None:
        facts, tensors = _SNAPSHOT_FACTS, dict(_SNAPSHOT_TENSORS)
        if part == "facts":
            facts = content.decode(errors="replace").encode()
        else:
            kind = tensors[part].dtype
            whole = len(content) // kind.itemsize * kind.itemsize
            found = torch.frombuffer(bytearray(content[:whole]), dtype=kind) if whole else torch.zeros(0, dtype=kind)
            same = found.numel() == tensors[part].numel()
            tensors[part] = found.view(tensors[part].shape) if same else found
        file = folder / "mirror.safetensors"
        order = sorted(tensors.items(), key=lambda each: -each[1].dtype.itemsize)
        write_tensors(file, facts, [Sliced(name, each.dtype, tuple(each.shape), [each]) for name, each in order])
        topics = Topics(SETTINGS)
        read_snapshot(file, _PURPOSE, SETTINGS, {(topics.items, 0): 5, (topics.vectors, 0): 5}, RECEIVED)

    return read


CHECKPOINT_FACTS = _json(
    made_for={"learn.replay_rows": 5}, names=["i", None], clock=1.0, progress={}, lineage="l", step=1, skipped_steps=0,
    left_out=0, standings={}, extra={"examples": [["t", 0, 5]], "items": []},
)  # fmt: skip
CHECKPOINT_TENSORS = save({"a": torch.ones(2, 3), "b": torch.zeros(2, dtype=torch.int64)})


def _checkpoint(part: str) -> Read:
    """One file of it is the input; the manifest names its sum, but where it is the input itself."""

    def read(content: bytes, folder: Path) -> None:
        import hashlib

        files = {TENSORS: CHECKPOINT_TENSORS, FACTS: CHECKPOINT_FACTS, part: content}
        sums = {name: hashlib.sha256(files[name]).hexdigest() for name in (TENSORS, FACTS)}
        for name, each in {MANIFEST: _json(files=sums), **files}.items():
            (folder / name).write_bytes(each)
        Facts.read(read_checkpoint(folder).facts, {"learn.replay_rows": 5})

    return read


def _bytes_of(tensor: torch.Tensor) -> bytes:
    return np.ascontiguousarray(tensor.numpy()).tobytes()


_REFUSED = (SnapshotRefused,)
_DAMAGED = (DamagedCheckpoint, CheckpointMismatch, OtherVersion)
_EXAMPLE = Example(0, 5, "u", RECEIVED, "view", "i", 1.0, "a\0", b"\0" * 8, "b\0")

TARGETS: dict[str, Target] = {
    "event": Target(
        [
            _json(user_id="u", item_id="i", event="view", timestamp="2026-11-25T09:30:00Z", event_id="e", value=1.5),
            _json(user_id=42, item_id=7, event="like", timestamp=1_700_000_000_000, context={"a": [1, {"b": None}]}),
            _json(user_id="u", item_id="i", event="hate", recommendation_id="t:0:1", extra=[1]),
        ],
        _event,
    ),
    "item": Target(
        [
            _json(item_id="i", title="Shoe", text="For hills", categories=["a", 1], scenarios=["shop"], hidden=False),
            _json(item_id=1, published_at=1.5, attributes={"price": 1.0, "size": {"a": []}}, title=None),
        ],
        _item,
    ),
    "item key": Target([b"i", "ü/🛒".encode()], _item_key),
    "request": Target(
        [
            _json(request_id="r", user_id="u", scenario="shop", k=5, exclude=["a", 2], categories=["c"], history=["i"]),
            _json(request_id=1, item_id="i", scenario="shop"),
        ],
        _request,
    ),
    "erasure": Target([_json(user_id="u", requested_at="2026-11-25T09:30:00Z"), _json(user_id=1)], _erasure),
    "order": Target(
        [
            _json(
                action_id="a", action="rollback", scenario="shop", version=3, author="me", reason="why", requested_at=5
            ),
            _json(action_id=1, action="consolidate", author="me", reason="why"),
        ],
        _order,
    ),
    "configuration": Target(
        [
            b'data = "d"\n[kafka]\nbroker = "h:9092"\nprefix = "a."\n[scenarios.shop]\nevents = { view = 1 }\nk = 9\n',
            b'[learn]\nmicro_batch = 64\n[gateway]\nport = 0\nnames = ["a"]\n[model]\ndimension = 64\nheads = 2\n',
        ],
        _configuration,
        (ConfigurationError,),
    ),
    "environment": Target(
        [
            b"HEADSTREAM_KAFKA_BROKER=h:9092\nHEADSTREAM_LEARN_MICRO_BATCH=64\nHEADSTREAM_SCENARIOS_SHOP_K=5",
            b'HEADSTREAM_SCENARIOS_SHOP_EVENTS={ view = 1.0 }\nHEADSTREAM_DATA=x\nHEADSTREAM_GATEWAY_NAMES=["a"]',
        ],
        _environment,
        (ConfigurationError,),
    ),
    "history.jsonl": Target([_lines(*EVENTS)], _rows("jsonl"), (ExplainedError,)),
    "history.csv": Target([CSV, CSV.replace(b",", b";")], _rows("csv"), (ExplainedError,)),
    "history.tsv": Target([CSV.replace(b",", b"\t")], _rows("tsv"), (ExplainedError,)),
    "history.csv.gz": Target([gzip.compress(CSV, mtime=0)], _rows("csv.gz"), (ExplainedError,)),
    "history.parquet": Target([_parquet()], _rows("parquet"), (ExplainedError,)),
    "body": Target(
        [b"[" + _lines(EVENTS[0]) + b"]", _lines(*EVENTS), _json(user_id="u", item_id="i")], _body, (Refusal,)
    ),
    "query": Target(
        [b"k=5&exclude=a&exclude=b&categories=c", b"signal=recall%4010&range=24h&points=5", b"limit=5&before=3&code=x"],
        _query,
    ),
    "example": Target([encode(_EXAMPLE)], _example, (OtherVersion,)),
    "user state": Target([encode(User(items="a\0"))], _user_state, (OtherVersion,)),
    "vector": Target([encode(_table().describe("i", fresh=True))], _vector, (OtherVersion,)),
    "weights": Target([_good_weights()], _weights, (OtherVersion,)),
    "tensor file": Target([_good_tensor_file()], _tensor_file, (DamagedFile,)),
    "snapshot facts": Target([_SNAPSHOT_FACTS], _snapshot("facts"), _REFUSED),
    **{
        f"snapshot {name}": Target([_bytes_of(_SNAPSHOT_TENSORS[name])], _snapshot(name), _REFUSED)
        for name in ("names", "items", "new", "paired", "neighbours", "keys")
    },
    "checkpoint manifest": Target([_json(files={TENSORS: "0" * 64, FACTS: "0" * 64})], _checkpoint(MANIFEST), _DAMAGED),
    "checkpoint facts": Target([CHECKPOINT_FACTS], _checkpoint(FACTS), _DAMAGED),
    "checkpoint tensors": Target([CHECKPOINT_TENSORS], _checkpoint(TENSORS), _DAMAGED),
}
