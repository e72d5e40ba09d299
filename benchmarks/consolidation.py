"""What a consolidation is worth: one learner goes on as it is, another consolidates first, on the same events.

    python -m benchmarks.consolidation movielens:FOLDER

Both have learnt the first `--after` of the stream; the recalls are @10, on what follows, each event first a test and
then a lesson. Cold items were used fewer than three times before.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence

import msgspec
import torch

from benchmarks.forgetting import encoded
from learner.exam import Exam
from learner.online import OnlineLearner
from learner.outcomes import COLD_USES, DEPTH
from schemas.records import Example
from schemas.settings import Settings
from streams.evaluate import read_examples
from streams.sources import open_history

STRETCH = 256


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", help="movielens:FOLDER, or a .jsonl, .csv or .parquet file")
    parser.add_argument("--after", type=float, default=0.5, help="share of the stream that is learnt before")
    parser.add_argument("--limit", type=int, help="read so many events at most")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    read = read_examples(Settings(), open_history(arguments.source, items=None, event=None), None, arguments.limit)
    texts = encoded(read)
    found = []
    for seed in range(arguments.seeds):
        settings = msgspec.structs.replace(read.settings, learn=msgspec.structs.replace(read.settings.learn, seed=seed))
        learner = OnlineLearner(settings, texts.shape[1], torch.device("cpu"))
        learner.put_items(read.items, texts)
        cut = round(arguments.after * len(read.examples))
        learn(learner, read.examples[:cut])
        state, first, then = learner.remember(), read.examples[cut : cut + 5000], read.examples[cut + 5000 :]
        runs = {}
        for name in ("as it is", "consolidated"):
            learner.return_to(state)
            began = time.monotonic()
            if name == "consolidated":
                under_way = learner.consolidate()
                while not learner.advance_consolidation(under_way, 10):
                    pass
            seconds = time.monotonic() - began
            runs[name] = {"seconds": seconds, "next 5,000": learn(learner, first), "rest": learn(learner, then)}
        found.append(runs)
        if not arguments.json:
            for name, run in runs.items():
                print(f"seed {seed}  {name:14}" + "".join(f"  {part} {each}" for part, each in run.items()))
    if arguments.json:
        print(json.dumps(found))


def learn(learner: OnlineLearner, examples: Sequence[tuple[str, Example]]) -> dict[str, float]:
    """Recall on these, each first a test and then a lesson, of all items and of cold ones."""
    hits: dict[str, list[bool]] = {"all": [], "cold": []}

    def note(exam: Exam) -> None:
        if exam.ranking is None:
            return
        target = exam.lessons.batch.target[exam.tested]
        hit = (exam.ranking.rows[:, :DEPTH] == target[:, None]).any(1)
        cold = learner.table.popularity.events[target] < COLD_USES
        hits["all"] += hit.tolist()
        hits["cold"] += hit[cold].tolist()

    learner.on_exam = note
    for start in range(0, len(examples), STRETCH):
        some = examples[start : start + STRETCH]
        for name in dict.fromkeys(scenario for scenario, _ in some):
            learner.learn(name, [example for scenario, example in some if scenario == name])
        if sys.stderr.isatty():
            print(f"\r{start:,} of {len(examples):,}   ", end="", file=sys.stderr)
    return {name: round(sum(each) / max(1, len(each)), 4) for name, each in hits.items()}


if __name__ == "__main__":
    main()
