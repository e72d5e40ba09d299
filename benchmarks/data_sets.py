"""Headstream beside its rivals on several real data sets, each with the scenarios that fit it.

Each event is first a test and then a lesson, as in `headstream evaluate`; the first 30 % are no test. Three questions
are answered for each set: is Headstream at or above its best rival, does it find items that fewer than three have used
better than item-kNN, and is it nowhere below decayed popularity? For the set with dislikes a fourth: how many places of
its lists go to items that the user said they hate, and how many would if nobody listened.

    python -m benchmarks.data_sets DATA --movielens FOLDER --seeds 3 --jobs 2
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray

from learner.encoder import TextEncoder
from learner.evaluation import MODELS, Results, Stream, evaluate
from learner.exam import Exam
from learner.online import OnlineLearner
from learner.outcomes import DEPTH, interval
from schemas.items import Item
from schemas.settings import Learn, Scenario, Settings
from streams.evaluate import WARM_EPOCHS, WARM_SHARE, read_examples
from streams.route import look_through
from streams.sources import History, open_history

OURS, CONTROL, COLD_RIVAL, STILL = "headstream", "decayed-popularity", "item-knn", "static"
TEXTS_AT_ONCE = 256
EVENTS_AT_ONCE = 256


@dataclass(frozen=True)
class DataSet:
    """A data set and how it is to be run.

    Attributes:
        source: as `open_history` takes it.
        repeat: whether people come back to what they used: groceries, but not films.
        dislikes: whether its events tell what users do not want.
    """

    name: str
    source: str
    repeat: bool = False
    dislikes: bool = False


@dataclass(frozen=True)
class Prepared:
    """A data set as the learner takes it."""

    settings: Settings
    stream: Stream


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="holds completejourney_small, movietweetings and kuairand_like_hate")
    parser.add_argument("--movielens", type=Path, help="ml-100k, as GroupLens or RecBole pack it; left out: not run")
    parser.add_argument("--sets", type=names, help="some of the sets only, with commas between")
    parser.add_argument("--models", type=names, default=list(MODELS), help="some of the models only")
    parser.add_argument("--seeds", type=int, default=1, help="runs, whose figures are averaged")
    parser.add_argument("--jobs", type=int, default=1, help="processes; each runs one seed of one set at a time")
    parser.add_argument("--limit", type=int, help="only the first so many events of each set")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    if unknown := set(arguments.models) - set(MODELS):
        sys.exit(f"--models: {', '.join(sorted(unknown))}; allowed are {', '.join(MODELS)}")
    sets = chosen(known_sets(arguments.folder, arguments.movielens), arguments.sets)
    found = {}
    with ProcessPoolExecutor(arguments.jobs, multiprocessing.get_context("spawn")) as pool:
        for each in sets:
            data = prepare(each, arguments.limit)
            runs = list(pool.map(partial(one_run, data, arguments.models), range(arguments.seeds)))
            found[each.name] = summary(list(data.settings.scenarios), runs)
            if each.dislikes and OURS in arguments.models:
                share = partial(hated_share, each, data, arguments.limit)
                respected, ignored = pool.map(share, (True, False))
                found[each.name]["hated"] = {"respected": respected, "ignored": ignored}
            if not arguments.json:
                print("\n".join(lines(each.name, found[each.name])), flush=True)
    if arguments.json:
        print(json.dumps(found))


def names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def known_sets(folder: Path, movielens: Path | None) -> list[DataSet]:
    sets = [
        DataSet("completejourney", str(folder / "completejourney_small"), repeat=True),
        DataSet("movietweetings", str(folder / "movietweetings")),
        DataSet("kuairand", str(folder / "kuairand_like_hate"), dislikes=True),
    ]
    if movielens is not None:
        sets.append(DataSet("movielens", f"movielens:{movielens}"))
    return sets


def chosen(sets: Sequence[DataSet], wanted: Sequence[str] | None) -> list[DataSet]:
    """The sets to run; ends the program if one is not known or not there."""
    known = {each.name: each for each in sets}
    if unknown := set(wanted or ()) - known.keys():
        sys.exit(f"--sets: {', '.join(sorted(unknown))}; allowed are {', '.join(known)}")
    picked = [known[name] for name in wanted or known]
    missing = [each.source for each in picked if not Path(each.source.removeprefix("movielens:")).is_dir()]
    if missing:
        sys.exit(f"{', '.join(missing)}: no such folder, so no data, no figure")
    return picked


def scenarios_of(each: DataSet, history: History, limit: int | None) -> Settings:
    """Settings with the scenarios that the events name, or else one for all of them."""
    found = look_through(islice(history.events(), limit)).scenarios()
    scenario = Scenario(repeat=each.repeat)
    return Settings(
        scenarios=dict.fromkeys(sorted(found), scenario) or {each.name: scenario}, learn=Learn(probe_rows=0)
    )


def prepare(each: DataSet, limit: int | None) -> Prepared:
    history = open_history(each.source, items=None, event=None)
    read = read_examples(scenarios_of(each, history, limit), history, None, limit)
    stream = Stream(read.items, encoded(read.items), read.examples, round(WARM_SHARE * len(read.examples)))
    return Prepared(read.settings, stream)


def encoded(items: Sequence[Item]) -> torch.Tensor:
    """The texts of the items, each different one read once; (items, encoder dimension)."""
    torch.set_num_threads(1)
    encoder = TextEncoder("")
    place = {text: number for number, text in enumerate(dict.fromkeys(item.prose for item in items))}
    texts = list(place)
    parts = [encoder.encode(texts[start : start + TEXTS_AT_ONCE]) for start in range(0, len(texts), TEXTS_AT_ONCE)]
    return torch.cat(parts)[[place[item.prose] for item in items]]


def one_run(data: Prepared, models: Sequence[str], seed: int) -> Results:
    torch.set_num_threads(1)
    return evaluate(data.settings, data.stream, models, seed, WARM_EPOCHS, lambda *_: None)


# What the runs came to


def summary(scenarios: Sequence[str], runs: Sequence[Results]) -> dict[str, object]:
    """Figures of one data set by name; of models that were not run there are none."""
    exam = runs[0].tested
    hits = {
        model: np.mean([np.concatenate(run.marks[model].places) < DEPTH for run in runs], axis=0)
        for model in runs[0].marks
    }  # (tests,) each
    recall = {model: float(hit.mean()) for model, hit in hits.items()}
    later = {model: float(hit[len(hit) // 2 :].mean()) for model, hit in hits.items()}
    figures: dict[str, object] = {
        "tests": len(exam.user),
        "cold tests": int(exam.cold.sum()),
        "recall@10": recall,
        "second half recall@10": later,
        "cold recall@10": {model: float(hit[exam.cold].mean()) for model, hit in hits.items()}
        if exam.cold.any()
        else {},
    }
    if OURS not in recall:
        return figures
    if STILL in recall:
        figures["ratio to static"] = {
            "all": recall[OURS] / max(recall[STILL], 1e-9),
            "second half": later[OURS] / max(later[STILL], 1e-9),
        }
    if others := {model: value for model, value in recall.items() if model != OURS}:
        best = max(others, key=others.__getitem__)
        low, high = interval(hits[OURS] - hits[best], exam.user)
        figures["best rival"] = {"model": best, "ratio": recall[OURS] / max(others[best], 1e-9), "lead": [low, high]}
    if COLD_RIVAL in hits and exam.cold.any():
        cold = {model: float(hits[model][exam.cold].mean()) for model in (OURS, COLD_RIVAL)}
        figures["cold ratio to item-knn"] = cold[OURS] / max(cold[COLD_RIVAL], 1e-9)
    if CONTROL in hits:
        lead = hits[OURS] - hits[CONTROL]
        figures["beside decayed popularity"] = {
            name: beside(hits, lead, exam.user, exam.scenario == number)
            for number, name in enumerate(scenarios)
            if (exam.scenario == number).any()
        }
    return figures


def beside(
    hits: Mapping[str, NDArray[np.float64]], lead: NDArray[np.float64], user: NDArray[np.int64], of: NDArray[np.bool_]
) -> dict[str, object]:
    """One scenario: both recalls, and 95 % of their difference, by bootstrap over users."""
    low, high = interval(lead[of], user[of])
    return {
        "tests": int(of.sum()),
        OURS: float(hits[OURS][of].mean()),
        CONTROL: float(hits[CONTROL][of].mean()),
        "lead": [low, high],
        "below": high < 0,
    }


def lines(name: str, figures: Mapping[str, object]) -> Iterator[str]:
    """A data set's figures as a table to read."""
    recall, later, cold = (figures[label] for label in ("recall@10", "second half recall@10", "cold recall@10"))
    assert isinstance(recall, dict)
    assert isinstance(later, dict)
    assert isinstance(cold, dict)
    yield f"\n{name}: {figures['tests']:,} tests, {figures['cold tests']:,} of them on cold items"
    yield f"  {'model':22}{'recall@10':>10}{'2nd half':>10}{'cold':>10}{'headstream is':>16}"
    for model, value in sorted(recall.items(), key=lambda pair: -pair[1]):
        ratio = f"{recall[OURS] / value:.3f} x" if OURS in recall and value > 0 else ""
        yield f"  {model:22}{value:10.4f}{later[model]:10.4f}{cold.get(model, float('nan')):10.4f}{ratio:>16}"
    for label in ("best rival", "ratio to static", "cold ratio to item-knn", "hated"):
        if label in figures:
            yield f"  {label}: {figures[label]}"
    scenarios = figures.get("beside decayed popularity")
    if isinstance(scenarios, dict):
        yield f"  {'scenario':26}{'tests':>8}{'headstream':>12}{'decayed':>10}   95 % of the difference"
        for scenario, each in scenarios.items():
            low, high = each["lead"]
            verdict = "  BELOW" if each["below"] else ""
            yield (
                f"  {scenario:26}{each['tests']:8,}{each[OURS]:12.4f}{each[CONTROL]:10.4f}"
                f"   {low:+.4f} to {high:+.4f}{verdict}"
            )


# Dislikes


def hated_share(each: DataSet, data: Prepared, limit: int | None, respected: bool) -> float:
    """Share of the list places, after the warm-up, that hold what the user said before that they hate.

    Here all that was acted on may come back: otherwise the hated would be kept out for having been seen.

    Args:
        data: of the same data set.
        respected: otherwise the dislikes are left out, as if nobody had listened.
    """
    torch.set_num_threads(1)
    history = open_history(each.source, items=None, event=None)
    read = read_examples(scenarios_of(replace(each, repeat=True), history, limit), history, None, limit)
    hated: defaultdict[str, dict[str, int]] = defaultdict(dict)
    for _, example in read.examples:
        if example.weight < 0:
            hated[example.user_id].setdefault(example.item_id, example.offset)
    learner = OnlineLearner(read.settings, data.stream.texts.shape[1], torch.device("cpu"))
    learner.put_items(data.stream.items, data.stream.texts)
    places = held = 0

    def look(exam: Exam) -> None:
        nonlocal places, held
        if exam.ranking is None:
            return
        for number, rows in zip(exam.tested.tolist(), exam.ranking.rows[:, :DEPTH].tolist(), strict=True):
            example = exam.examples[number]
            if example.offset < data.stream.warm:
                continue
            own = hated[example.user_id]
            listed = [learner.table.id_of[row] for row in rows if row]
            places += len(listed)
            held += sum(own.get(item or "", example.offset) < example.offset for item in listed)

    learner.on_exam = look
    if respected:
        told = read.examples
    else:
        told = [(name, msgspec.structs.replace(one, excluded="")) for name, one in read.examples if one.weight >= 0]
    for start in range(0, len(told), EVENTS_AT_ONCE):
        for scenario in read.settings.scenarios:
            learner.learn(scenario, [one for name, one in told[start : start + EVENTS_AT_ONCE] if name == scenario])
    return held / max(1, places)


if __name__ == "__main__":
    main()
