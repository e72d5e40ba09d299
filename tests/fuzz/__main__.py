"""`python -m tests.fuzz --minutes N --seed S [--json]`: hostile inputs against every decoder, for so long.

Ends with 1 if there is a finding. Each is saved once as a file, which is given to the suite by moving it to
`tests/fuzz/found/TARGET/`; `--target NAME --number N` gives one input of a seed to its decoder again.
"""

from __future__ import annotations

import argparse
import itertools
import json
import re
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from tests.fuzz.campaign import Finding, campaign
from tests.fuzz.targets import TARGETS

TURN_SECONDS = 2.0
"""How long one decoder is at it before the next has its turn."""


def main() -> int:
    """Run a campaign as the command line says."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=1.0, help="minutes of processor time, over all decoders")
    parser.add_argument("--seed", type=int, default=0, help="the same seed gives the same inputs in the same order")
    parser.add_argument("--target", action="append", choices=TARGETS, help="only these decoders; left out: all")
    parser.add_argument("--number", type=int, help="only this input of each decoder")
    parser.add_argument("--save", type=Path, default=Path("fuzz-findings"), help="folder for what was found")
    parser.add_argument("--json", action="store_true", help="print one line for scripts in place of progress")
    asked = parser.parse_args()
    numbers = itertools.count() if asked.number is None else iter([asked.number])
    runs = {name: campaign(name, asked.seed, each) for name, each in _shared(numbers, asked.target or list(TARGETS))}
    tried: Counter[str] = Counter()
    found: dict[tuple[str, str], Finding] = {}
    deadline = time.process_time() + asked.minutes * 60
    while runs and time.process_time() < deadline:
        for name in list(runs):
            turn = time.process_time() + TURN_SECONDS
            while time.process_time() < turn:
                try:
                    finding = next(runs[name])
                except StopIteration:
                    del runs[name]
                    break
                tried[name] += 1
                if finding is not None and (name, _place(finding)) not in found:
                    found[name, _place(finding)] = finding
                    file = _save(finding, asked.save, asked.seed)
                    if not asked.json:
                        print(f"FOUND {name} {finding.number}: {finding.what} ({file})\n{finding.trace}", flush=True)  # noqa: T201
        if not asked.json:
            left = max(0.0, deadline - time.process_time())
            print(f"{tried.total()} inputs, {len(found)} findings, {left:.0f} s left", flush=True)  # noqa: T201
    if asked.json:
        findings = [{"target": each.target, "number": each.number, "what": each.what} for each in found.values()]
        print(json.dumps({"seed": asked.seed, "inputs": tried, "findings": findings}))  # noqa: T201
    return 1 if found else 0


def _shared(numbers: Iterator[int], names: list[str]) -> Iterator[tuple[str, Iterator[int]]]:
    return zip(names, itertools.tee(numbers, len(names)), strict=True)


def _place(finding: Finding) -> str:
    """Where in our code it comes from: many inputs find the same."""
    places = re.findall(r'File ".*?/((?:schemas|learner|index|streams|tests)/[^"]+)", line (\d+)', finding.trace)
    return f"{finding.what.partition(':')[0]} {places[-1] if places else ''}"


def _save(finding: Finding, folder: Path, seed: int) -> Path:
    file = folder / finding.target / f"{seed}-{finding.number}"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(finding.content)
    return file


if __name__ == "__main__":
    sys.exit(main())
