"""The configuration: what overrides what, and that every fault is told so that its reader can mend it."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas.configuration import ConfigurationError, load, render, shown
from schemas.settings import DEFAULT_EVENTS, DEFAULT_SCENARIOS, Kafka, Scenario, Settings


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def load_text(text: str, environment: Mapping[str, str] | None = None) -> Settings:
    Path("headstream.toml").write_text(text, encoding="utf-8")
    return load(None, environment or {}, {})


def fault(text: str, environment: Mapping[str, str] | None = None) -> ConfigurationError:
    with pytest.raises(ConfigurationError) as caught:
        load_text(text, environment)
    return caught.value


def test_without_a_file_the_defaults_hold() -> None:
    assert load(None, {"PATH": "/bin", "HEADSTREAMS": "1"}, {}) == Settings()


def test_the_file_in_the_working_folder_is_read() -> None:
    assert load_text("[kafka]\nbroker = 'a:1'") == Settings(kafka=Kafka(broker="a:1"))


def test_a_named_file_is_read_in_place_of_it(folder: Path) -> None:
    (folder / "headstream.toml").write_text("data = 'wrong'")
    (folder / "other.toml").write_text("data = 'right'")
    assert load(folder / "other.toml", {}, {}).data == "right"


def test_a_named_file_that_is_missing_is_an_error(folder: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"none\.toml: cannot be read: No such file .* `headstream init`"):
        load(folder / "none.toml", {}, {})


def test_a_file_as_windows_saves_it_is_read(folder: Path) -> None:
    (folder / "headstream.toml").write_bytes(b"\xef\xbb\xbfdata = 'x'\r\n[kafka]\r\nport = 9\r\n")
    assert load(None, {}, {}) == Settings(data="x", kafka=Kafka(port=9))


def test_variables_override_the_file_and_overrides_both() -> None:
    text = "data = 'file'\n[learn]\nmicro_batch = 1\nseed = 1\nthreads = 1"
    Path("headstream.toml").write_text(text)
    environment = {"HEADSTREAM_LEARN_MICRO_BATCH": "2", "HEADSTREAM_LEARN_SEED": "2"}
    found = load(None, environment, {"learn.seed": 3})
    assert (found.data, found.learn.threads, found.learn.micro_batch, found.learn.seed) == ("file", 1, 2, 3)


@pytest.mark.parametrize(
    ("variable", "text", "place", "value"),
    [
        ("HEADSTREAM_DATA", "/var/head stream", "data", "/var/head stream"),
        ("HEADSTREAM_KAFKA_BROKER", "kafka:9092", "kafka.broker", "kafka:9092"),
        ("HEADSTREAM_KAFKA_PREFIX", "", "kafka.prefix", ""),
        ("HEADSTREAM_KAFKA_PREFIX", "12", "kafka.prefix", "12"),
        ("HEADSTREAM_LEARN_MICRO_BATCH", "128", "learn.micro_batch", 128),
        ("HEADSTREAM_LEARN_LEARNING_RATE", "1e-4", "learn.learning_rate", 1e-4),
        ("HEADSTREAM_MODEL_DROPOUT", "0", "model.dropout", 0.0),
        ("HEADSTREAM_SCENARIOS_SHOP_K", "3", "scenarios.shop.k", 3),
        ("HEADSTREAM_SCENARIOS_shop_K", "3", "scenarios.shop.k", 3),
        ("HEADSTREAM_SCENARIOS_SHOP_REPEAT", "true", "scenarios.shop.repeat", True),
        ("HEADSTREAM_SCENARIOS_SHOP_TRIGGERS", '["click"]', "scenarios.shop.triggers", ("click",)),
        ("HEADSTREAM_SCENARIOS_SHOP_TRIGGERS", "[]", "scenarios.shop.triggers", ()),
        (
            "HEADSTREAM_SCENARIOS_SHOP_EVENTS",
            "{ tap = 1, nope = -2.5 }",
            "scenarios.shop.events",
            {"tap": 1, "nope": -2.5},
        ),
    ],
)
def test_a_variable_or_an_override_is_read_as_the_type_of_its_key(
    variable: str, text: str, place: str, value: object
) -> None:
    for found in (load(None, {variable: text}, {}), load(None, {}, {place: text}), load(None, {}, {place: value})):
        reached: object = found
        for name in place.split("."):
            reached = reached[name] if isinstance(reached, dict) else getattr(reached, name)
        assert reached == value
        assert type(reached) is type(value)


def test_a_variable_finds_a_scenario_whose_name_cannot_stand_in_one() -> None:
    found = load_text("[scenarios.'Front-page.de']", {"HEADSTREAM_SCENARIOS_FRONT_PAGE_DE_K": "7"})
    assert found.scenarios == {"Front-page.de": Scenario(k=7)}
    assert load(None, {}, {"scenarios.Front-page.de.k": 8}).scenarios == {"Front-page.de": Scenario(k=8)}


def test_a_file_with_scenarios_has_only_those() -> None:
    found = load_text("[scenarios.a]\n[scenarios.b]\nevents = { tap = 1 }\ntriggers = ['tap']")
    assert found.scenarios == {"a": Scenario(), "b": Scenario(events={"tap": 1.0}, triggers=("tap",))}
    assert list(found.scenarios["a"].events) == list(DEFAULT_EVENTS)


@pytest.mark.parametrize(
    ("text", "key", "proposal"),
    [
        ("[learn]\nmicro_bach = 1", "learn.micro_bach", "learn.micro_batch"),
        ("[lern]\nmicro_batch = 1", "lern", "learn"),
        ("[kafka]\nurl = ''", "kafka.url", "database.url"),
        ("broker = 'a:1'", "broker", "kafka.broker"),
        ("[scenarios.shop]\ntrigger = []", "scenarios.shop.trigger", "scenarios.shop.triggers"),
        ("[scenarios.shop]\nK = 3", "scenarios.shop.K", "scenarios.shop.k"),
    ],
)
def test_an_unknown_key_proposes_the_nearest_known_one(text: str, key: str, proposal: str) -> None:
    error = fault(text)
    assert (error.source, error.key) == ("headstream.toml", key)
    assert str(error) == f'headstream.toml: "{key}" is not a key; the nearest known one is {proposal}'


@pytest.mark.parametrize(
    ("variable", "proposal"),
    [
        ("HEADSTREAM_KAFKA_BROKERS", "HEADSTREAM_KAFKA_BROKER"),
        ("HEADSTREAM_BROKER", "HEADSTREAM_KAFKA_BROKER"),
        ("HEADSTREAM_SCENARIOS_SHOPS_K", "HEADSTREAM_SCENARIOS_SHOP_K"),
    ],
)
def test_an_unknown_variable_proposes_the_nearest_known_one(variable: str, proposal: str) -> None:
    assert str(fault("", {variable: "x"})).endswith(f"; the nearest known one is {proposal}")


def test_an_unknown_override_proposes_the_nearest_known_key() -> None:
    with pytest.raises(ConfigurationError, match=r"the command line: .* nearest known one is kafka\.broker"):
        load(None, {}, {"kafka.brokr": "a:1"})


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("data = 'x'\nkafka = [", "line 2, column 10, the end of the file"),
        ("data = 'x'\n[kafka]\nport 7", "line 3, column 6"),
        ("data = 'x'\ndata = 'y'", "line 2, column 11, the end of the file"),
        ("a = " + "[" * 5000, "recursion"),
        ("a = " + "9" * 5000, "digits"),
    ],
)
def test_a_fault_of_syntax_is_told_with_its_place(text: str, place: str) -> None:
    assert re.search(f"headstream.toml: .*({place})", str(fault(text)))


def test_a_file_that_is_not_utf_8_is_told(folder: Path) -> None:
    (folder / "headstream.toml").write_bytes(b"data = '\xff'")
    with pytest.raises(ConfigurationError, match="byte 8 is not UTF-8"):
        load(None, {}, {})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[learn]\nmicro_batch = 0", "learn.micro_batch is 0; allowed is a whole number, at least 1"),
        ("[learn]\nmicro_batch = 1.5", "learn.micro_batch is 1.5; allowed is a whole number, at least 1"),
        ("[learn]\nmicro_batch = '64'", 'learn.micro_batch is "64"; allowed is a whole number, at least 1'),
        ("[learn]\nmicro_batch = true", "learn.micro_batch is true; allowed is a whole number, at least 1"),
        ("[learn]\nlearning_rate = 0", "learn.learning_rate is 0; allowed is a number, above 0"),
        ("[learn]\nlearning_rate = nan", "learn.learning_rate is nan; allowed is a number, above 0"),
        ("[learn]\nreplay_weight = inf", "learn.replay_weight is inf; allowed is a number, at least 0"),
        ("[model]\ndropout = 1.0", "model.dropout is 1.0; allowed is a number, at least 0 and below 1"),
        ("[model]\nheads = 3", "model.heads is 3; allowed is a divisor of model.dimension, which is 64"),
        ("[kafka]\npartitions = 257", "kafka.partitions is 257; allowed is a whole number from 1 to 256"),
        ("[kafka]\nport = 65536", "kafka.port is 65_536; allowed is a whole number from 0 to 65_535"),
        (
            "[kafka]\nprefix = 'my topics/'",
            """kafka.prefix is "my topics/"; allowed is text of letters, digits, '.', '_' and '-'""",
        ),
        ("data = ''", 'data is ""; allowed is the path of a folder'),
        ("data = 1979-05-27", "data is 1979-05-27; allowed is text"),
        ("kafka = 3", "kafka is 3; a table [kafka] is wanted"),
        ("[[kafka]]\nport = 3", "kafka is [{ port = 3 }]; a table [kafka] is wanted"),
        ("scenarios = 'shop'", 'scenarios is "shop"; a table [scenarios] is wanted'),
        (
            "scenarios = {}",
            "scenarios is empty; at least one [scenarios.NAME] is wanted; without any, the defaults hold",
        ),
        ("[scenarios]\nshop = 3", "scenarios.shop is 3; a table [scenarios.shop] is wanted"),
        ("[scenarios.shop]\nk = 1001", "scenarios.shop.k is 1001; allowed is a whole number from 1 to 1000"),
        ("[scenarios.shop]\nrepeat = 1", "scenarios.shop.repeat is 1; allowed is true or false"),
        (
            "[scenarios.shop]\ntriggers = 'view'",
            'scenarios.shop.triggers is "view"; allowed is a list of event names, such as ["click", "purchase"]',
        ),
        (
            "[scenarios.shop]\nevents = {}",
            "scenarios.shop.events is {  }; allowed is a table of event names and finite weights, "
            "such as { view = 1.0, dislike = -1.0 }",
        ),
        ("[scenarios.shop.events]\nview = nan", "scenarios.shop.events.view is nan; allowed is a finite number"),
        ("[scenarios.shop.events]\nview = '1'", 'scenarios.shop.events.view is "1"; allowed is a finite number'),
        ("[scenarios.shop.events]\n'' = 1", "scenarios.shop.events has an event without a name; every event needs one"),
        (
            "[scenarios.shop]\nevents = { tap = 1, buy = 2 }\ntriggers = ['tap', 'view']",
            'scenarios.shop.triggers is ["tap", "view"], but "view" is none of the scenario\'s events; '
            "allowed are tap, buy",
        ),
    ],
)
def test_a_value_that_is_not_allowed_is_told_with_what_is(text: str, message: str) -> None:
    assert str(fault(text)) == f"headstream.toml: {message}"


def test_a_fault_names_the_variable_that_it_came_from() -> None:
    error = fault("[learn]\nmicro_batch = 2", {"HEADSTREAM_LEARN_MICRO_BATCH": "many"})
    assert (error.source, error.key, error.value) == ("HEADSTREAM_LEARN_MICRO_BATCH", "learn.micro_batch", '"many"')
    assert error.allowed == "allowed is a whole number, at least 1"
    with pytest.raises(ConfigurationError, match=r"the command line: learn\.seed is"):
        load(None, {}, {"learn.seed": "x"})


@pytest.mark.parametrize("name", ["a b", "", "ü", "a/b", "x" * 101])
def test_a_scenario_must_be_able_to_stand_in_the_name_of_a_topic(name: str) -> None:
    assert "1 to 100 letters, digits, '.', '_' or '-' are allowed" in str(fault(f"[scenarios.'{name}']"))


@pytest.mark.parametrize("name", ["unknown", "Unknown"])
def test_the_name_of_no_scenario_cannot_be_one(name: str) -> None:
    assert f'"{name}" cannot name a scenario' in str(fault(f"[scenarios.{name}]"))


@pytest.mark.parametrize(("one", "other"), [("shop", "Shop"), ("a.b", "a_b"), ("a-b", "a_b")])
def test_scenarios_that_differ_in_signs_alone_are_refused(one: str, other: str) -> None:
    assert f'scenarios "{one}" and "{other}" are too much alike' in str(
        fault(f"[scenarios.'{one}']\n[scenarios.'{other}']")
    )


def test_a_prefix_that_makes_topics_too_long_is_refused() -> None:
    scenario = "s" * 100
    longest = "p" * 114
    assert load_text(f"kafka.prefix = '{longest}'\n[scenarios.{scenario}]").kafka.prefix == longest
    assert "231 characters; a topic may have 230 at most" in str(
        fault(f"kafka.prefix = '{longest}p'\n[scenarios.{scenario}]")
    )


@pytest.mark.parametrize("broker", ["", "kafka:9092", "a:1, b:2", "[::1]:9092", "10.0.0.1:9092"])
def test_a_broker_is_a_list_of_addresses(broker: str) -> None:
    assert load(None, {}, {"kafka.broker": broker}).kafka.broker == broker


@pytest.mark.parametrize("broker", ["kafka", "kafka:", ":9092", "http://kafka:9092", "kafka:9092,", "a b:1"])
def test_a_broker_without_a_port_is_refused(broker: str) -> None:
    with pytest.raises(ConfigurationError, match=r"kafka\.broker is .*; allowed is host:port"):
        load(None, {}, {"kafka.broker": broker})


@pytest.mark.parametrize(
    "url", ["", "sqlite:///x.db", "postgresql+psycopg://u:p@h:5432/d", "postgresql+psycopg://u@h/d?sslmode=require"]
)
def test_a_database_is_sqlite_or_postgresql(url: str) -> None:
    assert load(None, {}, {"database.url": url}).database.url == url


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("nonsense", "is not a database URL"),
        ("postgresql+psycopg://u:secret@h:port/d", "is not a database URL"),
        ("postgresql://u:secret@h/d", "asks for postgresql;"),
        ("mysql://u:secret@h/d", "asks for mysql;"),
        ("sqlite://", "which every process would have for itself"),
        ("sqlite:///:memory:", "which every process would have for itself"),
    ],
)
def test_another_database_is_refused_and_no_password_shown(url: str, reason: str) -> None:
    error = fault("", {"HEADSTREAM_DATABASE_URL": url})
    assert reason in str(error)
    assert "secret" not in str(error) + error.value


@pytest.mark.parametrize(
    ("url", "safe"),
    [
        ("postgresql+psycopg://u:secret@h:5432/d", "postgresql+psycopg://u:***@h:5432/d"),
        ("postgresql+psycopg://u:sec@ret@h/d", "postgresql+psycopg://u:***@h/d"),
        ("postgresql+psycopg://:secret@h/d", "postgresql+psycopg://:***@h/d"),
        ("postgresql+psycopg://h/d?user=u&password=secret&a=b", "postgresql+psycopg://h/d?user=u&password=***&a=b"),
        ("postgresql+psycopg://h/d?sslpassword=secret", "postgresql+psycopg://h/d?sslpassword=***"),
        ("postgresql+psycopg://u@h:5432/d", "postgresql+psycopg://u@h:5432/d"),
        ("sqlite:////var/lib/x.db", "sqlite:////var/lib/x.db"),
    ],
)
def test_a_url_is_shown_without_its_password(url: str, safe: str) -> None:
    assert shown(url) == safe


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_no_password_however_odd_is_shown(secret: str) -> None:
    marked = f"<{secret}>"
    assert marked not in shown(f"postgresql+psycopg://u:{marked}@host/name")


def test_the_written_file_loads_back_to_the_defaults() -> None:
    assert load_text(render()) == Settings()


def test_the_written_file_names_every_key_with_its_sentence() -> None:
    text = render()
    written = tomllib.loads(text)
    in_one_line = " ".join(line.removeprefix("#").strip() for line in text.splitlines())
    for section in msgspec.structs.fields(Settings):
        if section.name == "scenarios":
            assert list(written["scenarios"]) == list(DEFAULT_SCENARIOS)
            names, found = msgspec.structs.fields(Scenario), written["scenarios"]["shop"]
        elif isinstance(section.type, type) and issubclass(section.type, msgspec.Struct):
            names, found = msgspec.structs.fields(section.type), written[section.name]
        else:
            names, found = (section,), written
        for key in names:
            assert key.name in found or re.search(rf"^# {key.name} = ", text, re.MULTILINE), key.name
            [description] = [each.description for each in key.type.__metadata__ if each.description]
            assert description in in_one_line


def test_every_line_of_the_written_file_that_is_commented_out_can_be_used() -> None:
    text = re.sub(r"^# (\w+ = )", r"\1", render(), flags=re.MULTILINE)
    assert load_text(text).scenarios["shop"].triggers == ("click", "purchase")


TOML_VALUES = st.sampled_from(
    ["1", "-1", "0", "1.5", "nan", "'x'", "''", "true", "[]", "['view']", "{}", "{a=1}", "1e999"]
)
SECTIONS = [
    "",
    "[kafka]",
    "[learn]",
    "[model]",
    "[database]",
    "[scenarios.shop]",
    "[scenarios.shop.events]",
    "[[serve]]",
]
NAMES = [
    "data",
    "kafka",
    "broker",
    "port",
    "micro_batch",
    "dropout",
    "url",
    "k",
    "events",
    "triggers",
    "repeat",
    "view",
]


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.sampled_from(SECTIONS), st.sampled_from(NAMES), TOML_VALUES)
def test_no_value_anywhere_is_met_by_another_error(section: str, name: str, value: str) -> None:
    text = f"{section}\n{name} = {value}"
    try:
        found = load_text(text)
    except ConfigurationError as error:
        assert "; " in str(error)
    else:
        assert msgspec.convert(msgspec.to_builtins(found), Settings) == found


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.text(st.characters(exclude_categories=["Cs"])) | st.sampled_from(NAMES),
    st.text() | st.sampled_from(["1", "[", "{", "1\nx = 2", "nan"]),
)
def test_no_text_of_a_variable_is_met_by_another_error(name: str, text: str) -> None:
    for variable in (name, "SCENARIOS_SHOP_TRIGGERS", "LEARN_MICRO_BATCH", "DATABASE_URL"):
        try:
            load(None, {f"HEADSTREAM_{variable}": text}, {})
        except ConfigurationError as error:
            assert error.source == f"HEADSTREAM_{variable}"
