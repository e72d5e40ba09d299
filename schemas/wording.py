"""Keys and values of the settings in words and in TOML, for messages and for the file that `headstream init` writes."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
from msgspec import inspect

from schemas.settings import Scenario, Settings

PATTERNS_IN_WORDS = {
    r"^[A-Za-z0-9._-]*$": "letters, digits, '.', '_' and '-'",
    r"^(auto|cpu|cuda(:[0-9]+)?)$": "the form auto, cpu, cuda or cuda:NUMBER",
}
EXAMPLE_LIST = '["click", "purchase"]'
LONGEST_DISPLAY = 80


def kind_of(annotation: Any) -> inspect.Type:
    """The type of a key, without what its annotation adds."""
    kind = inspect.type_info(annotation)
    return kind.type if isinstance(kind, inspect.Metadata) else kind


def description_of(annotation: Any) -> str:
    """The sentence that the settings say about a key; empty where they say none."""
    kind = inspect.type_info(annotation)
    found = (kind.extra_json_schema or {}).get("description", "") if isinstance(kind, inspect.Metadata) else ""
    return str(found)


def allowed_by(annotation: Any) -> str:
    """What may stand for a key of this type, as a noun."""
    kind = kind_of(annotation)
    if isinstance(kind, inspect.IntType | inspect.FloatType):
        noun = "a whole number" if isinstance(kind, inspect.IntType) else "a number"
        if kind.ge is not None and kind.le is not None:
            return f"{noun} from {to_toml(kind.ge)} to {to_toml(kind.le)}"
        bounds = {"at least": kind.ge, "above": kind.gt, "at most": kind.le, "below": kind.lt}
        words = " and ".join(f"{word} {to_toml(bound)}" for word, bound in bounds.items() if bound is not None)
        return f"{noun}, {words}" if words else noun
    if isinstance(kind, inspect.BoolType):
        return "true or false"
    if isinstance(kind, inspect.StrType):
        return "text" if kind.pattern is None else f"text of {PATTERNS_IN_WORDS[kind.pattern]}"
    if isinstance(kind, inspect.DictType):
        return "a table of event names and finite weights, such as { view = 1.0, dislike = -1.0 }"
    return f"a list of event names, such as {EXAMPLE_LIST}"


def range_of(annotation: Any) -> str:
    """What may stand for a key as a sentence of its own; empty where a look at its default says it."""
    kind = kind_of(annotation)
    numeric = isinstance(kind, inspect.IntType | inspect.FloatType)
    if not numeric and not (isinstance(kind, inspect.StrType) and kind.pattern):
        return ""
    allowed = allowed_by(annotation)
    return f"{allowed[0].upper()}{allowed[1:]}."


def shown(url: str) -> str:
    """A database URL as people may see it: its password hidden, be it before the host or in the query."""
    # Up to the last "@", since an unescaped one in a password must not show the rest of it.
    without = re.sub(r"(://[^:/@]*):.*@", r"\1:***@", url, flags=re.DOTALL)
    return re.sub(r"([?&][a-z_]*password=)[^&]*", r"\1***", without, flags=re.IGNORECASE)


def displayed(value: Any) -> str:
    """A value for a message: as TOML has it, shortened, on one line, without a password."""
    text = to_toml(shown(value)) if isinstance(value, str) else to_toml(value)
    return text if len(text) <= LONGEST_DISPLAY else f"{text[: LONGEST_DISPLAY - 3]}..."


def to_toml(value: Any) -> str:
    """A value as TOML has it, on one line."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key_to_toml(key)} = {to_toml(each)}" for key, each in value.items()) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(to_toml(each) for each in value) + "]"
    if isinstance(value, int) and abs(value) >= 10_000:
        return f"{value:_}" if abs(value) < 1 << 64 else f"an integer of {value.bit_length()} bits"
    return str(value)


def key_to_toml(key: str) -> str:
    """A key as TOML has it: bare where it can be."""
    return key if re.fullmatch("[A-Za-z0-9_-]+", key) else to_toml(key)


def is_section(kind: Any) -> bool:
    """Whether a field of the settings is a table of keys."""
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct)


HEADER = """\
Headstream's configuration: every key, with its default. An environment variable overrides what stands here, such as \
HEADSTREAM_KAFKA_BROKER for broker in [kafka], and an option of the command line overrides both."""


def render() -> str:
    """The commented file that `headstream init` writes: every key with its sentence, its range and its default."""
    settings = Settings()
    top: list[str] = [_comment(HEADER), ""]
    tables: list[str] = []
    for field in msgspec.structs.fields(Settings):
        value = getattr(settings, field.name)
        if field.name == "scenarios":
            tables += _rendered_scenarios(value)
        elif is_section(field.type):
            tables += ["", _comment(_summary(field.type)), f"[{field.name}]", *_rendered_keys(value, commented=True)]
        else:
            top += _rendered_key(field.name, field.type, value, commented=True)
    return "\n".join([*top, *tables]) + "\n"


def _rendered_scenarios(scenarios: Mapping[str, Scenario]) -> Iterator[str]:
    yield from ("", _comment(f"{_summary(Scenario)} A file that has one such section has only those it has."))
    for number, (name, scenario) in enumerate(scenarios.items()):
        # What is said of the keys of the first holds for all.
        yield from ([""] if number else [])
        yield f"[scenarios.{key_to_toml(name)}]"
        yield from _rendered_keys(scenario, commented=number == 0)


def _rendered_keys(section: msgspec.Struct, commented: bool) -> Iterator[str]:
    for field in msgspec.structs.fields(section):
        yield from _rendered_key(field.name, field.type, getattr(section, field.name), commented)


def _rendered_key(name: str, annotation: Any, value: Any, commented: bool) -> Iterator[str]:
    if commented:
        yield _comment(f"{description_of(annotation)} {range_of(annotation)}".strip())
    # TOML has no word for "left out".
    yield f"# {name} = {EXAMPLE_LIST}" if value is None else f"{name} = {to_toml(value)}"


def _summary(section: type) -> str:
    return " ".join((section.__doc__ or "").split())


def _comment(text: str) -> str:
    return textwrap.fill(text, 118, initial_indent="# ", subsequent_indent="# ")
