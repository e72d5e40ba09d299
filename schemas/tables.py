"""SQL tables: offsets with their claims, user states, tallies, items and model versions."""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Float, Integer, LargeBinary, MetaData, String, Text
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
    """

    __tablename__ = "offsets"

    application: Mapped[str] = mapped_column(String(64), primary_key=True)
    topic: Mapped[str] = mapped_column(String(255), primary_key=True)
    partition: Mapped[int] = mapped_column(Integer, primary_key=True)
    next: Mapped[int | None] = mapped_column(BigInteger)
    claim: Mapped[int] = mapped_column(BigInteger)
    owner: Mapped[str] = mapped_column(String(128))


class UserState(Table):
    """What is known of a user; `state` is msgpack, `version` grows by one with every write."""

    __tablename__ = "users"

    user_id: Mapped[str] = mapped_column(Text, primary_key=True)
    state: Mapped[bytes] = mapped_column(LargeBinary)
    version: Mapped[int] = mapped_column(BigInteger)


class Tally(Table):
    """How many records of a partition came to which end; written with the offset that covers them.

    Attributes:
        code: `events`, `duplicates`, `nulls`, `unknown_fields`, `clamped_times`, `lost`, or `dead:` and an error code.
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
