"""The status as a person reads it: a table of scenarios, a table of partitions, and the dead letters by reason."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from schemas.times import say_length, say_time
from streams.status import ProcessStatus, ScenarioStatus, Status


def print_status(found: Status, out: Console) -> None:
    for name, process in found["processes"].items():
        if process["silent"]:
            out.print(f"[yellow]{_silence(name, process)}[/]", highlight=False)
    out.print(_scenarios(found))
    if any(each["index"] for each in found["scenarios"].values()):
        out.print()
        out.print(_indexes(found))
    partitions, empty = _partitions(found)
    out.print()
    out.print(partitions)
    out.print(f"[dim]{empty} partitions are empty[/]")
    dead = found["dead_letters"]
    out.print("dead letters: " + (", ".join(f"{code} {count}" for code, count in sorted(dead.items())) or "none"))


def _silence(name: str, process: ProcessStatus) -> str:
    heard, age = process["heard_at"], process["model_age_seconds"]
    when = "has not been heard within the last hour" if heard is None else f"was last heard at {say_time(heard)}"
    weights = f"; lists are made with weights that are {say_length(age)} old" if name == "learn" and age else ""
    return f"{name.upper()} {when}{weights}: look whether it runs"


def _scenarios(found: Status) -> Table:
    table = _plain_table("scenario", "events", "lag", "learnt", "model", "age", "recall@10", "dead letters")
    for name, each in found["scenarios"].items():
        model = each["model"]
        age, recall = model["age_seconds"], model["recall@10"]
        table.add_row(
            name, f"{each['events']:,}", f"{each['lag']:,}", f"{each['examples']:,}", _model(each),
            "-" if age is None else f"{age:.0f} s", "-" if recall is None else f"{recall:.3f}",
            f"{sum(each['dead_letters'].values()):,}",
        )  # fmt: skip
    return table


def _model(scenario: ScenarioStatus) -> str:
    """Its version, and what is not as usual."""
    model = scenario["model"]
    restored = "" if model["restores"] is None else f" (v{model['restores']} again)"
    return f"v{model['version']}{restored}{'' if scenario['learning'] == 'on' else ', paused'}"


def _indexes(found: Status) -> Table:
    table = _plain_table("index of", "kind", "items", "not in lists", "recall", "memory", "why")
    table.columns[-1].justify, table.columns[-1].no_wrap = "left", False
    for name, each in found["scenarios"].items():
        if index := each["index"]:
            table.add_row(
                name, index["kind"] + (", full" if index["full"] else ""), f"{index['items']:,}",
                f"{index['delta']:,}" if index["lists"] else "-",
                f"{index['recall']:.3f}", f"{index['nbytes'] / 2**20:,.1f} MiB", index["why"],
            )  # fmt: skip
    return table


def _partitions(found: Status) -> tuple[Table, int]:
    """The partitions that hold something, and how many others there are."""
    table, empty = _plain_table("topic", "partition", "end", "position", "lag"), 0
    for topic, partitions in found["topics"].items():
        for number, each in partitions.items():
            if each["end"] == 0:
                empty += 1
                continue
            position = "-" if each["position"] is None else f"{each['position']:,}"
            table.add_row(topic, number, f"{each['end']:,}", position, f"{each['lag']:,}")
    return table, empty


def _plain_table(first: str, *others: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column(first)
    for heading in others:
        table.add_column(heading, justify="right", no_wrap=True)
    return table
