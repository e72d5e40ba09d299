"""The configuration: a TOML file, then environment variables, then the command line, as one checked `Settings`."""

from __future__ import annotations

import difflib
import math
import re
import tomllib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import sqlalchemy as sa
from msgspec import inspect

from schemas.errors import ExplainedError
from schemas.settings import SECRET_KEYS, Kafka, Scenario, Settings
from schemas.topics import UNKNOWN_SCENARIO, Topics
from schemas.wording import allowed_by, displayed, is_section, kind_of, render, shown

__all__ = ["ConfigurationError", "load", "render", "shown", "variable_of"]

DEFAULT_FILE = Path("headstream.toml")
VARIABLE_PREFIX = "HEADSTREAM_"
COMMAND_LINE = "the command line"
DEFAULTS = "the defaults"

SCENARIO_NAME = re.compile(r"[A-Za-z0-9._-]{1,100}")
BROKER_ADDRESS = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\s:,/]+):[0-9]{1,5}")

# Kafka allows 249, but a recommendation id "topic:partition:offset" must fit into the 256 bytes of an id.
MAX_TOPIC_CHARACTERS = 230

Place = tuple[str, ...]
"""Where a key stands, such as ("scenarios", "shop", "k")."""


class ConfigurationError(ExplainedError):
    """Something in the configuration cannot be taken.

    Attributes:
        source: the file, the environment variable or the command line.
        key: dotted; empty where the file as a whole is at fault.
        value: what stands there, shortened and without passwords; empty where the key itself is at fault.
        allowed: what could stand there instead, in words.
    """

    def __init__(self, source: str, problem: str, allowed: str, key: str = "", value: str = "") -> None:
        super().__init__(f"{source}: {problem}; {allowed}")
        self.source = source
        self.key = key
        self.value = value
        self.allowed = allowed


class _Key(NamedTuple):
    place: Place
    type: Any

    @property
    def name(self) -> str:
        return ".".join(self.place)

    @property
    def variable(self) -> str:
        return variable_of(self.name)


def variable_of(key: str) -> str:
    """The environment variable that sets a dotted key."""
    return VARIABLE_PREFIX + re.sub("[^A-Z0-9]", "_", key.upper())


class _Given(NamedTuple):
    """A value that somebody set; where it is `text`, it is still to be read as the key's type."""

    value: Any
    source: str
    text: bool


def load(path: Path | None, environment: Mapping[str, str], overrides: Mapping[str, object]) -> Settings:
    """The settings that hold: defaults, overridden by the file, by the environment, by `overrides`, in this order.

    Args:
        path: the file; None is `headstream.toml` in the working folder, if there is one.
        environment: variables HEADSTREAM_<SECTION>_<KEY> count, for a scenario HEADSTREAM_SCENARIOS_<NAME>_<KEY>,
            with "_" for every sign of the name that is no letter or digit.
        overrides: values by dotted key, such as "kafka.broker"; text is read as that of a variable is.

    Raises:
        ConfigurationError: for the first thing that cannot be taken.
    """
    file = path or (DEFAULT_FILE if DEFAULT_FILE.exists() else None)
    document, source = ({}, DEFAULTS) if file is None else (_read(file), str(file))
    scenarios = _scenario_names(document, source)
    keys = {key.place: key for key in _keys(scenarios)}
    given = {
        **{place: _Given(value, source, text=False) for place, value in _entries(document, keys, source)},
        **_from_environment(environment, keys.values()),
        **_from_overrides(overrides, keys.values()),
    }
    settings = _assemble({place: _typed(keys[place], each) for place, each in given.items()}, scenarios)
    _check_together(settings, lambda place: given[place].source if place in given else DEFAULTS)
    return settings


def _read(file: Path) -> dict[str, Any]:
    try:
        text = file.read_text(encoding="utf-8-sig")
    except OSError as error:
        allowed = "`headstream init` writes a configuration with every key"
        raise ConfigurationError(str(file), f"cannot be read: {error.strerror}", allowed) from None
    except UnicodeDecodeError as error:
        raise ConfigurationError(str(file), f"byte {error.start} is not UTF-8", "save the file as UTF-8") from None
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        *above, last = text.split("\n")
        end = f"line {len(above) + 1}, column {len(last) + 1}"
        problem = str(error).replace("at end of document", f"at {end}, the end of the file")
        allowed = 'TOML is wanted, such as [kafka] and, on a line of its own, broker = "host:9092"'
        raise ConfigurationError(str(file), problem, allowed) from None


def _keys(scenarios: Iterable[str]) -> Iterator[_Key]:
    """Every key that may be set, in the order of the settings."""
    for field in msgspec.structs.fields(Settings):
        if field.name == "scenarios":
            each = msgspec.structs.fields(Scenario)
            yield from (_Key(("scenarios", name, key.name), key.type) for name in scenarios for key in each)
        elif is_section(field.type):
            yield from (_Key((field.name, key.name), key.type) for key in msgspec.structs.fields(field.type))
        else:
            yield _Key((field.name,), field.type)


def _scenario_names(document: Mapping[str, Any], source: str) -> list[str]:
    if "scenarios" not in document:
        return list(Settings().scenarios)
    table = _table("scenarios", document["scenarios"], source)
    if not table:
        allowed = "at least one [scenarios.NAME] is wanted; without any, the defaults hold"
        raise ConfigurationError(source, "scenarios is empty", allowed, "scenarios", "{}")
    folded = {UNKNOWN_SCENARIO: UNKNOWN_SCENARIO}
    for name in table:
        key = f"scenarios.{name}"
        if not SCENARIO_NAME.fullmatch(name):
            allowed = "1 to 100 letters, digits, '.', '_' or '-' are allowed"
            raise ConfigurationError(source, f"{displayed(name)} cannot name a scenario", allowed, key)
        twin = folded.setdefault(re.sub("[._-]", "_", name.lower()), name)
        if twin == UNKNOWN_SCENARIO:
            allowed = "that name is kept for requests that name no scenario of yours"
            raise ConfigurationError(source, f'"{name}" cannot name a scenario', allowed, key)
        if twin != name:
            allowed = "names must differ in more than case, '.', '_' and '-', since Kafka's metrics mix those up"
            raise ConfigurationError(source, f'scenarios "{twin}" and "{name}" are too much alike', allowed, key)
    return list(table)


def _table(name: str, value: Any, source: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _bad_value(source, name, value, f"a table [{name}] is wanted")
    return value


def _entries(document: Mapping[str, Any], keys: Collection[Place], source: str) -> Iterator[tuple[Place, Any]]:
    """The document's values by place, each known to be a key."""
    sections = {place[0] for place in keys if len(place) > 1}
    for name, value in document.items():
        entries: Iterable[tuple[Place, Any]] = [((name,), value)]
        if name == "scenarios":
            tables = {scenario: _table(f"scenarios.{scenario}", table, source) for scenario, table in value.items()}
            entries = [((name, scenario, key), each) for scenario, t in tables.items() for key, each in t.items()]
        elif name in sections:
            entries = [((name, key), each) for key, each in _table(name, value, source).items()]
        for place, each in entries:
            if place not in keys:
                raise _unknown_key(source, ".".join(place), [*(".".join(known) for known in keys), *sections])
            yield place, each


def _bad_value(source: str, key: str, value: Any, allowed: str, problem: str = "") -> ConfigurationError:
    # Of a secret not even what is wrong with it: a part of one may stand in the wrong key's place, but never be shown.
    text = "***" if key in SECRET_KEYS and key != "database.url" else displayed(value)
    return ConfigurationError(source, f"{key} is {text}{problem}", allowed, key, text)


def _unknown_key(source: str, name: str, known: Collection[str]) -> ConfigurationError:
    return ConfigurationError(source, f"{displayed(name)} is not a key", _proposal(name, known), name)


def _proposal(name: str, known: Collection[str]) -> str:
    """The known name that is meant by `name`, most likely: of nearly the same letters, or with the same last part."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.75)
    last = name.rpartition(".")[2]
    close = close or [each for each in known if last and each.rpartition(".")[2] == last]
    if not close:
        tails = {each.rpartition(".")[2]: each for each in known}
        close = [tails[tail] for tail in difflib.get_close_matches(last, tails, n=1, cutoff=0.7)]
    close = close or difflib.get_close_matches(name, known, n=1, cutoff=0.0)
    return f"the nearest known one is {close[0]}"


def _from_environment(environment: Mapping[str, str], keys: Iterable[_Key]) -> dict[Place, _Given]:
    places = {key.variable: key.place for key in keys}
    given = {}
    for variable, text in environment.items():
        if variable.startswith(VARIABLE_PREFIX):
            place = places.get(variable.upper())
            if place is None:
                raise ConfigurationError(variable, "no key has this variable", _proposal(variable, places), variable)
            given[place] = _Given(text, variable, text=True)
    return given


def _from_overrides(overrides: Mapping[str, object], keys: Iterable[_Key]) -> dict[Place, _Given]:
    places = {key.name: key.place for key in keys}
    given = {}
    for name, value in overrides.items():
        if name not in places:
            raise _unknown_key(COMMAND_LINE, name, places)
        given[places[name]] = _Given(value, COMMAND_LINE, text=isinstance(value, str))
    return given


def _typed(key: _Key, given: _Given) -> Any:
    """The value as the key's type, within its range.

    Raises:
        ConfigurationError: where it is not.
    """
    kind = kind_of(key.type)
    value = given.value
    if given.text and isinstance(kind, inspect.DictType | inspect.UnionType):
        value = _read_value(value)
    if isinstance(kind, inspect.DictType) and isinstance(value, dict) and value:
        return {name: _weight(f"{key.name}.{name}", name, each, given.source) for name, each in value.items()}
    try:
        typed = msgspec.convert(value, key.type, strict=not given.text)
        if not isinstance(typed, float) or math.isfinite(typed):
            return typed
    except (msgspec.ValidationError, OverflowError, UnicodeEncodeError):  # the last: bytes that are no UTF-8
        pass
    raise _bad_value(given.source, key.name, value, f"allowed is {allowed_by(key.type)}")


def _read_value(text: str) -> Any:
    """What `text` is in TOML; itself where it is nothing there."""
    try:
        document = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):
        return text
    return document["value"] if len(document) == 1 else text


def _weight(key: str, event: str, value: Any, source: str) -> float:
    if not event:
        raise ConfigurationError(source, f"{key[:-1]} has an event without a name", "every event needs one", key)
    try:
        weight = msgspec.convert(value, float)
        if math.isfinite(weight):
            return weight
    except (msgspec.ValidationError, OverflowError):
        pass
    raise _bad_value(source, key, value, "allowed is a finite number")


def _assemble(values: Mapping[Place, Any], scenarios: Iterable[str]) -> Settings:
    def below(*section: str) -> dict[str, Any]:
        return {place[-1]: value for place, value in values.items() if place[:-1] == section}

    sections = {field.name: field.type for field in msgspec.structs.fields(Settings) if is_section(field.type)}
    return Settings(
        **below(),
        **{name: section(**below(name)) for name, section in sections.items()},
        scenarios={name: Scenario(**below("scenarios", name)) for name in scenarios},
    )


def _check_together(settings: Settings, source_of: Callable[[Place], str]) -> None:
    """Refuse what each key allows but what cannot work.

    Raises:
        ConfigurationError: for the first such thing.
    """

    def refused(place: Place, value: Any, allowed: str, problem: str = "") -> ConfigurationError:
        return _bad_value(source_of(place), ".".join(place), value, allowed, problem)

    if not settings.data.strip() or "\0" in settings.data:
        raise refused(("data",), settings.data, "allowed is the path of a folder")
    broker = settings.kafka.broker
    if broker and not all(BROKER_ADDRESS.fullmatch(each.strip()) for each in broker.split(",")):
        allowed = 'allowed is host:port, or several with "," between, or "" for the embedded Kafka'
        raise refused(("kafka", "broker"), broker, allowed)
    if unfit := _access_problem(settings.kafka):
        raise refused(("kafka", "security"), settings.kafka.security, *unfit)
    longest = max((topic.name for topic in Topics(settings).all()), key=len)
    if len(longest) > MAX_TOPIC_CHARACTERS:
        problem = f", which gives topic {longest} {len(longest)} characters"
        allowed = f"a topic may have {MAX_TOPIC_CHARACTERS} at most"
        raise refused(("kafka", "prefix"), settings.kafka.prefix, allowed, problem)
    if settings.database.url and (problem := _database_problem(settings.database.url)):
        allowed = "allowed is postgresql+psycopg://user:password@host/name or sqlite:///FILE"
        raise refused(("database", "url"), settings.database.url, allowed, problem)
    model = settings.model
    if model.dimension % model.heads:
        allowed = f"allowed is a divisor of model.dimension, which is {model.dimension}"
        raise refused(("model", "heads"), model.heads, allowed)
    for name, scenario in settings.scenarios.items():
        for event in scenario.triggers or ():
            if event not in scenario.events:
                problem = f", but {displayed(event)} is none of the scenario's events"
                allowed = f"allowed are {', '.join(scenario.events)}"
                raise refused(("scenarios", name, "triggers"), scenario.triggers, allowed, problem)


def _access_problem(kafka: Kafka) -> tuple[str, str] | None:
    """Why one gets no access to Kafka like this: what is allowed, and what is wrong with it; None if one may."""
    tls, sasl = kafka.security.endswith("ssl"), kafka.security.startswith("sasl_")
    if kafka.security != "plaintext" and not kafka.broker:
        return "name a cluster in kafka.broker, or leave kafka.security out", ", but the embedded Kafka knows none"
    for name in ("ca_file", "certificate_file", "key_file"):
        if getattr(kafka, name) and not tls:
            return "set it to ssl or sasl_ssl", f", which makes no use of kafka.{name}"
    for name in ("username", "password", "password_file"):
        if getattr(kafka, name) and not sasl:
            return "set it to sasl_ssl", f", which makes no use of kafka.{name}"
    if kafka.key_file and not kafka.certificate_file:
        return "set kafka.certificate_file too", ", and kafka.key_file is of no use without a certificate"
    if not sasl:
        return None
    if not kafka.username or not (kafka.password or kafka.password_file):
        return "set kafka.username, and kafka.password_file or kafka.password", ", which asks for a user and a password"
    if kafka.password and kafka.password_file:
        return "keep one of them", ", and both kafka.password and kafka.password_file are set"
    if kafka.mechanism == "PLAIN" and not tls:
        allowed = "set it to sasl_ssl, or kafka.mechanism to SCRAM-SHA-512"
        return allowed, ", and kafka.mechanism PLAIN would send the password for all to read"
    return None


def _database_problem(text: str) -> str:
    """Why this cannot be our database; empty where it can."""
    try:
        url = sa.make_url(text)
    except (sa.exc.ArgumentError, ValueError):
        return ", which is not a database URL"
    if url.drivername in ("sqlite", "sqlite+pysqlite"):
        shared = url.database and url.database != ":memory:"
        return "" if shared else ", which every process would have for itself"
    return "" if url.drivername == "postgresql+psycopg" else f", which asks for {url.drivername}"
