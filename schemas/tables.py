"""SQL tables: offsets with their claims, user states, tallies, items, model versions, and what people watch."""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Float, Index, Integer, LargeBinary, MetaData, String, Text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Table(DeclarativeBase):
    """Root of all tables; constraints have names, so that migrations can speak of them."""

    metadata = MetaData(naming_convention={"pk": "pk_%(table_name)s", "ix": "ix_%(table_name)s_%(column_0_N_name)s"})


class Offset(Table):
    """How far an application has come in a partition, and who may say so.

    Attributes:
        next: first offset whose effect is not in this database; None before the first commit.
        claim: raised by every taking of the partition; a commit under an older one changes nothing.
        owner: the process that holds the claim, for people.
        topic_id: Kafka's own, of the topic that `next` is an offset of; None where Kafka names none.
    """

    __tablename__ = "offsets"

    application: Mapped[str] = mapped_column(String(64), primary_key=True)
    topic: Mapped[str] = mapped_column(String(255), primary_key=True)
    partition: Mapped[int] = mapped_column(Integer, primary_key=True)
    next: Mapped[int | None] = mapped_column(BigInteger)
    claim: Mapped[int] = mapped_column(BigInteger)
    owner: Mapped[str] = mapped_column(String(128))
    topic_id: Mapped[str | None] = mapped_column(String(64))


class UserState(Table):
    """What is known of a user; `state` is msgpack, `version` grows by one with every write."""

    __tablename__ = "users"

    user_id: Mapped[str] = mapped_column(Text, primary_key=True)
    state: Mapped[bytes] = mapped_column(LargeBinary)
    version: Mapped[int] = mapped_column(BigInteger)


class Tally(Table):
    """How many records of a partition came to which end; written with the offset that covers them.

    Attributes:
        code: `events`, `duplicates`, `nulls`, `unknown_fields`, `clamped_times`, `lost`, `erased`, or `dead:` and an
            error code; and, of an events topic: `lists` that were sent to users and `clicks` on them, `control_lists`
            and `control_clicks` those of the control group, which the former two leave out. A list that answers a
            request counts beside the events, under the partition of the request. `erased` are events of an erased past
            that came late; `erasures`, of their topic, those that were carried out.
    """

    __tablename__ = "tallies"

    topic: Mapped[str] = mapped_column(String(255), primary_key=True)
    partition: Mapped[int] = mapped_column(Integer, primary_key=True)
    code: Mapped[str] = mapped_column(String(64), primary_key=True)
    count: Mapped[int] = mapped_column(BigInteger)


class CatalogueItem(Table):
    """An item as LEARN has last seen it, for people and tools; `body` is the item as msgpack."""

    __tablename__ = "items"

    item_id: Mapped[str] = mapped_column(Text, primary_key=True)
    title: Mapped[str] = mapped_column(Text)
    hidden: Mapped[bool] = mapped_column(Boolean)
    body: Mapped[bytes] = mapped_column(LargeBinary)


class PublishedHead(Table):
    """The newest publication of each scenario, for status and dashboards.

    Attributes:
        recall: prequential recall@10 of recent examples; `hits` of `tested` over all examples ever.
    """

    __tablename__ = "heads"

    scenario: Mapped[str] = mapped_column(String(255), primary_key=True)
    lineage: Mapped[str] = mapped_column(String(64))
    version: Mapped[int] = mapped_column(BigInteger)
    step: Mapped[int] = mapped_column(BigInteger)
    published_at: Mapped[float] = mapped_column(Float)
    recall: Mapped[float | None] = mapped_column(Float)
    tested: Mapped[int] = mapped_column(BigInteger)
    hits: Mapped[int] = mapped_column(BigInteger)
    examples: Mapped[int] = mapped_column(BigInteger)


class IndexState(Table):
    """How a SERVE's index of a scenario stands, for status and dashboards; `report` is JSON."""

    __tablename__ = "indexes"

    scenario: Mapped[str] = mapped_column(String(255), primary_key=True)
    owner: Mapped[str] = mapped_column(String(128), primary_key=True)
    reported_at: Mapped[float] = mapped_column(Float)
    report: Mapped[str] = mapped_column(Text)


class Checkpoint(Table):
    """A checkpoint of LEARN that is complete on disk; the newest row is the one that counts."""

    __tablename__ = "checkpoints"

    number: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    folder: Mapped[str] = mapped_column(Text)
    sha256: Mapped[str] = mapped_column(String(64))
    step: Mapped[int] = mapped_column(BigInteger)
    made_at: Mapped[float] = mapped_column(Float)


class Series(Table):
    """What a signal came to in one stretch of time, at one of several resolutions.

    Attributes:
        scenario: "" where the signal is of the whole system.
        signal: one of `schemas.signals.SIGNALS`.
        seconds: how long the stretch is, and `at`: when it begins, epoch seconds, a multiple of it.
        count: observations; `total` is their sum, `least` and `most` their extremes.
    """

    __tablename__ = "series"

    scenario: Mapped[str] = mapped_column(String(255), primary_key=True)
    signal: Mapped[str] = mapped_column(String(64), primary_key=True)
    seconds: Mapped[int] = mapped_column(Integer, primary_key=True)
    at: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    count: Mapped[float] = mapped_column(Float)
    total: Mapped[float] = mapped_column(Float)
    least: Mapped[float] = mapped_column(Float)
    most: Mapped[float] = mapped_column(Float)


class Report(Table):
    """What was said on the drift topic, for dashboards; the columns are the fields of a `DriftReport`.

    Attributes:
        detected_at: epoch seconds.
    """

    __tablename__ = "reports"

    report_id: Mapped[str] = mapped_column(String(255), primary_key=True)
    scenario: Mapped[str] = mapped_column(String(255))
    signal: Mapped[str] = mapped_column(String(64))
    status: Mapped[str] = mapped_column(String(32))
    severity: Mapped[str] = mapped_column(String(16))
    value: Mapped[float | None] = mapped_column(Float)
    reference: Mapped[float | None] = mapped_column(Float)
    threshold: Mapped[float | None] = mapped_column(Float)
    window: Mapped[int] = mapped_column(BigInteger)
    detected_at: Mapped[float] = mapped_column(Float)
    action: Mapped[str] = mapped_column(String(255))
    reason: Mapped[str] = mapped_column(Text)

    __table_args__ = (Index(None, "scenario", "detected_at"), Index(None, "detected_at"))


class SignalVerdict(Table):
    """How a signal of a scenario stands in the eyes of its detector, or why nothing can be said of it.

    Attributes:
        state: `steady`, `alarm` or `none`; `reason`: why, for people.
        low, high: below and above these it would be an alarm; None where there is no such bound.
    """

    __tablename__ = "signal_verdicts"

    scenario: Mapped[str] = mapped_column(String(255), primary_key=True)
    signal: Mapped[str] = mapped_column(String(64), primary_key=True)
    state: Mapped[str] = mapped_column(String(16))
    reason: Mapped[str] = mapped_column(Text)
    low: Mapped[float | None] = mapped_column(Float)
    high: Mapped[float | None] = mapped_column(Float)


class Version(Table):
    """A version of a scenario that was good once and can be rolled back to.

    Attributes:
        version: of the publication that was found good.
        checkpoint: number of the one that holds it.
        metrics: JSON, numbers by name as they stood then.
        note: why it was kept, for people.
    """

    __tablename__ = "versions"

    scenario: Mapped[str] = mapped_column(String(255), primary_key=True)
    version: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    lineage: Mapped[str] = mapped_column(String(64))
    step: Mapped[int] = mapped_column(BigInteger)
    made_at: Mapped[float] = mapped_column(Float)
    checkpoint: Mapped[int] = mapped_column(BigInteger)
    metrics: Mapped[str] = mapped_column(Text)
    note: Mapped[str] = mapped_column(Text)


class Stance(Table):
    """How a scenario stands towards its good version.

    Attributes:
        learning: `on` or `paused`.
        restores: the earlier version that is served again; None where what is learnt is served as it is learnt.
        good: the newest version that was found good; None before the first.
        since: epoch seconds from which all this holds, or since when `restores` is served again; `reason`: why, for
            people.
        pairs: examples on which what is learnt was compared with the good version since that was made, and
            `difference`: by how much recall@10 was higher on them, in the mean.
    """

    __tablename__ = "stances"

    scenario: Mapped[str] = mapped_column(String(255), primary_key=True)
    learning: Mapped[str] = mapped_column(String(16))
    restores: Mapped[int | None] = mapped_column(BigInteger)
    good: Mapped[int | None] = mapped_column(BigInteger)
    since: Mapped[float] = mapped_column(Float)
    reason: Mapped[str] = mapped_column(Text)
    pairs: Mapped[int] = mapped_column(BigInteger)
    difference: Mapped[float] = mapped_column(Float)


class PerformedAction(Table):
    """An order from the control topic and what came of it, or a dead letter that went back to where it came from.

    Attributes:
        action: one of `schemas.control.ACTIONS`, or `republish`; its action_id is then "topic:partition:offset" of the
            source record.
        outcome: `done` or `refused`, and `detail` says why; of a `republish` also `begun`.
    """

    __tablename__ = "actions"

    action_id: Mapped[str] = mapped_column(String(256), primary_key=True)
    action: Mapped[str] = mapped_column(String(32))
    scenario: Mapped[str | None] = mapped_column(String(255))
    version: Mapped[int | None] = mapped_column(BigInteger)
    author: Mapped[str] = mapped_column(Text)
    reason: Mapped[str] = mapped_column(Text)
    requested_at: Mapped[float] = mapped_column(Float)
    performed_at: Mapped[float] = mapped_column(Float)
    outcome: Mapped[str] = mapped_column(String(16))
    detail: Mapped[str] = mapped_column(Text)


class ProbeRecall(Table):
    """Recall@10 on a frozen probe set at one moment: a cell of a scenario's forgetting matrix.

    Attributes:
        window: number of the probe set, in the order of time; `began_at` and `ended_at` say when its questions were
            asked, epoch seconds, and `size` how many they are.
        at: when it was tested, epoch seconds.
    """

    __tablename__ = "probe_recalls"

    scenario: Mapped[str] = mapped_column(String(255), primary_key=True)
    window: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    at: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    began_at: Mapped[float] = mapped_column(Float)
    ended_at: Mapped[float] = mapped_column(Float)
    size: Mapped[int] = mapped_column(Integer)
    recall: Mapped[float] = mapped_column(Float)


class Erasure(Table):
    """The receipt of an erasure, as far as one of our processes is concerned; it does not say whose it was.

    Attributes:
        part: `serve` or `learn`.
        requested_at: epoch seconds, as `begun_at` and `done_at`.
        done_at: None until nothing is left to be removed here.
    """

    __tablename__ = "erasures"

    erasure_id: Mapped[str] = mapped_column(String(256), primary_key=True)
    part: Mapped[str] = mapped_column(String(16), primary_key=True)
    requested_at: Mapped[float] = mapped_column(Float)
    reason: Mapped[str] = mapped_column(Text)
    begun_at: Mapped[float] = mapped_column(Float)
    done_at: Mapped[float | None] = mapped_column(Float)


class ErasureCount(Table):
    """How much an erasure removed from one place, one of `schemas.reports.PLACES`."""

    __tablename__ = "erasure_counts"

    erasure_id: Mapped[str] = mapped_column(String(256), primary_key=True)
    place: Mapped[str] = mapped_column(String(32), primary_key=True)
    count: Mapped[int] = mapped_column(BigInteger)


class ErasedUser(Table):
    """A user who was erased, by a keyed hash; it keeps the past from coming back.

    Attributes:
        until: events dated up to then are refused, epoch seconds.
        erased_at: when it was carried out, epoch seconds.
        version: of the user's row as it went; whoever comes back goes on counting from here.
        sequence: grows by one with every erasure, over all users.
    """

    __tablename__ = "erased_users"

    user_hash: Mapped[str] = mapped_column(String(64), primary_key=True)
    until: Mapped[float] = mapped_column(Float)
    erased_at: Mapped[float] = mapped_column(Float)
    version: Mapped[int] = mapped_column(BigInteger)
    sequence: Mapped[int] = mapped_column(BigInteger, index=True)


class ErasureKey(Table):
    """The key of the hashes of `ErasedUser`, made with the table; there is one."""

    __tablename__ = "erasure_keys"

    number: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    key: Mapped[bytes] = mapped_column(LargeBinary)
