"""Settings: every key with its type, default, unit and a sentence, as frozen structs."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

DEFAULT_EVENTS = {
    "view": 1.0,
    "click": 1.0,
    "read": 1.0,
    "watch": 1.0,
    "long_view": 2.0,
    "rate": 1.0,
    "rating": 1.0,
    "like": 2.0,
    "share": 2.0,
    "comment": 2.0,
    "follow": 2.0,
    "forward": 2.0,
    "profile_enter": 1.0,
    "save": 2.0,
    "cart": 2.0,
    "book": 3.0,
    "purchase": 3.0,
    "dislike": -1.0,
    "hate": -1.0,
    "return": -1.0,
}

PositiveInt = Annotated[int, Meta(ge=1)]
Partitions = Annotated[int, Meta(ge=1, le=256)]
Seconds = Annotated[float, Meta(gt=0)]
Share = Annotated[float, Meta(ge=0, le=1)]

SECRET_KEYS = frozenset({"kafka.password", "gateway.token", "database.url"})
"""What is never shown as it is; a database URL is shown without its password."""


class Guarded(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A section that holds a secret, which its printed form hides: a traceback or a log may show it."""

    def __repr__(self) -> str:
        section = type(self).__name__.lower()
        shown = {
            name: "***" if value and f"{section}.{name}" in SECRET_KEYS else value
            for name, value in msgspec.structs.asdict(self).items()
        }
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in shown.items())})"


class Kafka(Guarded, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the topics live."""

    broker: Annotated[str, Meta(description='host:port of a Kafka cluster; "" starts an embedded Apache Kafka.')] = ""
    port: Annotated[
        int, Meta(ge=0, le=65535, description="Port of the embedded Kafka on loopback; 0 takes a free one.")
    ] = 0
    prefix: Annotated[str, Meta(pattern=r"^[A-Za-z0-9._-]*$", description="Begins the name of every topic.")] = (
        "headstream."
    )
    partitions: Annotated[Partitions, Meta(description="Partitions of each events topic and of requests.")] = 4
    replication: Annotated[int, Meta(ge=1, le=16, description="Copies of each partition in the cluster.")] = 1
    watchdog_seconds: Annotated[
        float,
        Meta(
            ge=0,
            description="Seconds for which records may wait while SERVE or LEARN works none of them, before it writes"
            " all stacks to its log and ends, to be started anew; 0 is for ever.",
        ),
    ] = 120.0
    security: Annotated[
        Literal["plaintext", "ssl", "sasl_ssl", "sasl_plaintext"],
        Meta(
            description='How to speak to the cluster: "ssl" is TLS, "sasl_ssl" TLS and a password, "sasl_plaintext" a'
            " password without TLS."
        ),
    ] = "plaintext"
    ca_file: Annotated[
        str,
        Meta(
            description='PEM file of the authorities that vouch for the brokers; "" is those that this machine trusts.'
        ),
    ] = ""
    certificate_file: Annotated[
        str, Meta(description='PEM certificate that we show to the brokers, where they ask for one; "" is none.')
    ] = ""
    key_file: Annotated[
        str, Meta(description='PEM key of that certificate, not encrypted; "" looks for it in certificate_file.')
    ] = ""
    mechanism: Annotated[
        Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"],
        Meta(description='How the password is shown; "PLAIN" shows it as it is, and is for sasl_ssl only.'),
    ] = "SCRAM-SHA-512"
    username: Annotated[str, Meta(description="Who we are at the cluster, with sasl_ssl and sasl_plaintext.")] = ""
    password: Annotated[str, Meta(description="Password of username; better in password_file or the environment.")] = ""
    password_file: Annotated[str, Meta(description="File that holds the password, in place of password.")] = ""


class Database(Guarded, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where user states, offsets and model versions live."""

    url: Annotated[
        str,
        Meta(
            description='SQLAlchemy URL, such as postgresql+psycopg://user@host/name; "" is SQLite in the data folder.'
        ),
    ] = ""
    patience_seconds: Annotated[
        Seconds,
        Meta(
            description="Seconds for which SERVE and LEARN wait for a database that fails; then they end, to be started"
            " anew."
        ),
    ] = 300.0


class Serve(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How events become recommendations."""

    batch_records: Annotated[PositiveInt, Meta(description="Records of one partition taken in one batch, at most.")] = (
        400
    )
    coalesce_milliseconds: Annotated[
        float,
        Meta(
            ge=0,
            le=1000,
            description="Pause, in milliseconds, in which a quiet stream gathers events; costs latency, saves CPU.",
        ),
    ] = 2.0
    seen: Annotated[
        PositiveInt,
        Meta(description="Items per user and scenario that are remembered as acted on, newest first to stay."),
    ] = 1000
    event_ids: Annotated[
        PositiveInt, Meta(description="Events per user within which a repeated event_id counts once.")
    ] = 1000
    cached_users: Annotated[PositiveInt, Meta(description="User states held in memory between batches, at most.")] = (
        50_000
    )
    fresh_impressions: Annotated[
        int,
        Meta(
            ge=0, description="Times a new item is shown in the slot kept for new items before it must earn its place."
        ),
    ] = 20
    fresh_seconds: Annotated[
        Seconds, Meta(description="Seconds after its publication during which an item counts as new.")
    ] = 3600.0
    attribution_seconds: Annotated[
        Seconds,
        Meta(
            description="Seconds after a list during which an event on one of its items counts as a click on it, where"
            " the event names no recommendation_id."
        ),
    ] = 1800.0
    snapshot_seconds: Annotated[
        float,
        Meta(
            ge=0,
            description="Seconds between snapshots, from which the next start goes on in place of reading topics whole;"
            " 0 keeps none.",
        ),
    ] = 300.0


class Index(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How SERVE searches the items of each scenario."""

    kind: Annotated[
        Literal["auto", "exact", "ivf"],
        Meta(
            description=(
                '"exact" looks at every item, "ivf" at lists of items that a user points to; "auto" is exact up to '
                "exact_items, and on a GPU."
            )
        ),
    ] = "auto"
    exact_items: Annotated[PositiveInt, Meta(description="Items of a scenario up to which auto is exact.")] = 50_000
    recall: Annotated[
        float,
        Meta(gt=0, le=1, description="Share of the truly best 100 items that ivf is to find; 1 reads every list."),
    ] = 0.985
    delta_items: Annotated[
        PositiveInt,
        Meta(description="Changed items of a scenario that are looked at one by one before they join ivf's lists."),
    ] = 2048
    memory_mib: Annotated[
        int,
        Meta(ge=0, description="MiB of vectors of one scenario above which ivf keeps them in float16; 0 is no limit."),
    ] = 0
    device: Annotated[
        str,
        Meta(
            pattern=r"^(auto|cpu|cuda(:[0-9]+)?)$", description='"cpu", "cuda", or "auto": CUDA where there is a GPU.'
        ),
    ] = "cpu"


class Learn(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How examples become weights."""

    micro_batch: Annotated[PositiveInt, Meta(description="Examples per gradient step.")] = 64
    coalesce_milliseconds: Annotated[
        float,
        Meta(
            ge=0, le=10_000, description="Pause, in milliseconds, in which a quiet stream gathers examples for a step."
        ),
    ] = 100.0
    learning_rate: Annotated[Seconds, Meta(description="AdamW's step size for trunk, heads and item rows.")] = 3e-3
    mixer_learning_rate: Annotated[Seconds, Meta(description="Adam's step size for the mixer.")] = 6e-3
    weight_decay: Annotated[float, Meta(ge=0, description="AdamW's decoupled weight decay.")] = 0.01
    replay_batch: Annotated[int, Meta(ge=0, description="Replayed examples beside each micro-batch.")] = 64
    replay_weight: Annotated[float, Meta(ge=0, description="Weight of the replayed loss beside the new one.")] = 0.5
    replay_rows: Annotated[PositiveInt, Meta(description="Replay rows kept per scenario.")] = 4000
    user_share: Annotated[
        float,
        Meta(
            gt=0,
            le=1,
            description="Share of the newest thousand examples of a scenario that one user may have where more than a"
            " thousand users are active, and the more the fewer they are; what is above it teaches nothing. 1 is no"
            " limit.",
        ),
    ] = 0.02
    probe_rows: Annotated[
        int,
        Meta(
            ge=0,
            description="Examples held out per scenario and window, to test on them what is forgotten; 0 is none.",
        ),
    ] = 200
    probe_share: Annotated[
        Share,
        Meta(description="Share of each window that is held out until there are so many; nothing learns from it."),
    ] = 0.01
    probe_window: Annotated[
        PositiveInt, Meta(description="Examples of a scenario after which a new window of probes begins.")
    ] = 20_000
    probe_windows: Annotated[
        int, Meta(ge=3, le=1000, description="Windows of probes kept per scenario; older neighbours become one.")
    ] = 8
    publish_seconds: Annotated[Seconds, Meta(description="Seconds between publications while there is news.")] = 0.5
    checkpoint_seconds: Annotated[Seconds, Meta(description="Seconds between checkpoints while there is news.")] = 10.0
    checkpoints_kept: Annotated[PositiveInt, Meta(description="Checkpoints kept on disk.")] = 3
    recall_window: Annotated[
        PositiveInt, Meta(description="Recent examples over which prequential recall is averaged.")
    ] = 2000
    device: Annotated[
        str,
        Meta(
            pattern=r"^(auto|cpu|cuda(:[0-9]+)?)$", description='"cpu", "cuda", or "auto": CUDA where there is a GPU.'
        ),
    ] = "auto"
    threads: Annotated[PositiveInt, Meta(description="CPU threads of one LEARN process.")] = 1
    avalanche: Annotated[
        bool,
        Meta(
            description="Whether Avalanche takes the steps and measures forgetting. Without it LEARN learns the same to"
            " the bit, and saves what its import costs: some ten seconds and 300 MB."
        ),
    ] = True
    seed: Annotated[int, Meta(description="Seed of everything random.")] = 0


class Model(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Sizes of the model. A change starts a new model."""

    encoder: Annotated[
        str,
        Meta(description='Hugging Face text encoder, by folder or name; "" is the installed MiniLM.'),
    ] = ""
    dimension: Annotated[int, Meta(ge=8, le=1024, description="Length of item and query vectors.")] = 64
    history: Annotated[
        int, Meta(ge=1, le=200, description="Newest events of a user that are kept, and that the model reads.")
    ] = 20
    heads: Annotated[PositiveInt, Meta(description="Attention heads of the trunk.")] = 2
    feedforward: Annotated[
        PositiveInt, Meta(description="Width of the trunk's inner layer, in multiples of dimension.")
    ] = 2
    dropout: Annotated[float, Meta(ge=0, lt=1, description="Dropout while training.")] = 0.2
    adapter_rank: Annotated[PositiveInt, Meta(description="Rank of each scenario's adapter.")] = 16
    neighbours: Annotated[int, Meta(ge=4, le=1024, description="Co-visited items kept per item.")] = 128
    mixer_units: Annotated[PositiveInt, Meta(description="Hidden units of the mixer that all scenarios share.")] = 32
    neural_candidates: Annotated[PositiveInt, Meta(description="Candidates from the index.")] = 200
    covisited_candidates: Annotated[PositiveInt, Meta(description="Candidates from co-visitation.")] = 100
    popular_candidates: Annotated[PositiveInt, Meta(description="Candidates from decayed popularity.")] = 100
    items: Annotated[PositiveInt, Meta(description="Items that the tables may grow to.")] = 1_000_000
    unlisted_items: Annotated[
        int,
        Meta(ge=0, description="Of these, items that events name and no record on the items topic does, at most."),
    ] = 10_000


class Scenario(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One place where people meet items, with a topic and a head of its own."""

    events: Annotated[
        dict[str, float],
        Meta(min_length=1, description="Event names and what each is worth; a negative weight is dislike."),
    ] = msgspec.field(default_factory=lambda: dict(DEFAULT_EVENTS))
    triggers: Annotated[
        tuple[str, ...] | None,
        Meta(description="Events that cause a recommendation; left out, all of them do; [] is none."),
    ] = None
    k: Annotated[int, Meta(ge=1, le=1000, description="Items of one recommendation.")] = 10
    repeat: Annotated[bool, Meta(description="Whether items that the user has acted on may be recommended again.")] = (
        False
    )
    control: Annotated[
        Share, Meta(description="Share of the users who are shown what is popular, to compare the model with.")
    ] = 0.0
    impressions: Annotated[
        float,
        Meta(
            ge=0,
            description="Weight, as a dislike, of items that stood above the chosen one in a list; 0 learns from none.",
        ),
    ] = 0.0


class Gate(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When what a scenario has learnt becomes its good version, and when it is taken back."""

    seconds: Annotated[Seconds, Meta(description="Seconds between decisions on what becomes good.")] = 60.0
    share: Annotated[
        Share,
        Meta(description="Share of the micro-batches that are also ranked by the good version; 0 compares never."),
    ] = 0.25
    least_pairs: Annotated[
        PositiveInt, Meta(description="Examples ranked by both before a version may become good.")
    ] = 200
    settled_seconds: Annotated[
        float, Meta(ge=0, description="Seconds that users must have been here before a version, to have a say in it.")
    ] = 600.0
    newcomers: Annotated[
        Share,
        Meta(
            description="Share of examples of users who are newer than that, above which nothing becomes good and an"
            " alarm of quality takes the scenario back."
        ),
    ] = 0.5
    margin: Annotated[
        float,
        Meta(ge=0, le=1, description="Recall@10 by which it may be lower than the good version's and still pass."),
    ] = 0.01
    error: Annotated[
        float,
        Meta(
            gt=0, lt=1, description="Chance of a rollback between two decisions though nothing became worse, at most."
        ),
    ] = 1e-6
    after_rollback: Annotated[
        Literal["restart", "pause"],
        Meta(
            description='"restart" learns on from the good version and serves it until what is learnt has passed; '
            '"pause" waits for a person.'
        ),
    ] = "restart"
    versions_kept: Annotated[
        PositiveInt, Meta(description="Good versions of a scenario that are kept to roll back to, of growing age.")
    ] = 8


class Drift(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When a change of a signal is an alarm."""

    patience: Annotated[
        float,
        Meta(
            ge=0.1,
            le=100,
            description="Multiplies the observations that are waited for before a level is said to have changed; below"
            " 1 alarms come sooner, and more of them are false.",
        ),
    ] = 1.0


class Gateway(Guarded, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The HTTP door and the dashboard."""

    host: Annotated[str, Meta(description="Address to listen on; beyond loopback put a proxy with TLS before it.")] = (
        "127.0.0.1"
    )
    port: Annotated[int, Meta(ge=0, le=65535, description="Port of API and dashboard; 0 takes a free one.")] = 6070
    token: Annotated[
        str,
        Meta(
            description='What must be shown to change state, 16 characters or more; "" makes one in DATA/gateway.token.'
        ),
    ] = ""
    names: Annotated[
        str,
        Meta(
            description='Further host names by which it may be called, with "," between, such as that of a proxy; '
            '"*" is any.'
        ),
    ] = ""
    timeout_seconds: Annotated[Seconds, Meta(description="Seconds that a request waits for its recommendation.")] = 5.0


class Metrics(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What SERVE and LEARN tell Prometheus of themselves, at /metrics; the gateway tells it on its own port."""

    host: Annotated[str, Meta(description="Address that SERVE and LEARN answer Prometheus on.")] = "127.0.0.1"
    serve_port: Annotated[
        int, Meta(ge=0, le=65535, description="Port of SERVE's metrics; 0 takes a free one, see DATA/endpoints.json.")
    ] = 0
    learn_port: Annotated[
        int, Meta(ge=0, le=65535, description="Port of LEARN's metrics; 0 takes a free one, see DATA/endpoints.json.")
    ] = 0


DEFAULT_SCENARIOS = ("shop", "video", "news", "travel", "social")


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole configuration."""

    data: Annotated[str, Meta(description="Folder for the embedded Kafka, the database, checkpoints and logs.")] = (
        ".headstream"
    )
    stop_seconds: Annotated[
        Seconds,
        Meta(
            description="Seconds that a process may take to stop; then it writes all stacks to its log and ends with"
            " code 75."
        ),
    ] = 8.0
    kafka: Kafka = Kafka()
    database: Database = Database()
    serve: Serve = Serve()
    index: Index = Index()
    learn: Learn = Learn()
    model: Model = Model()
    gate: Gate = Gate()
    drift: Drift = Drift()
    gateway: Gateway = Gateway()
    metrics: Metrics = Metrics()
    scenarios: Annotated[dict[str, Scenario], Meta(min_length=1)] = msgspec.field(
        default_factory=lambda: {name: Scenario() for name in DEFAULT_SCENARIOS}
    )
