"""How soon the dashboard shows thirty days of twenty scenarios, in a real Chromium, and what GATEWAY weighs.

    uv run python -m benchmarks.dashboard            # measures
    uv run python -m benchmarks.dashboard --keep     # fills, serves, and waits for Ctrl-C: to look at it

Every visit is a browser's first one, with nothing cached, from the navigation on. Beside it stands an empty page that
the same GATEWAY serves as a file, in the same browser.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
from playwright.sync_api import Browser, sync_playwright

from benchmarks.past import NAMES, fill
from benchmarks.past_records import fill_catalogue, publish_records
from schemas.configuration import load
from schemas.migrations import upgrade
from streams.broker import EmbeddedBroker
from streams.history import History
from streams.store import Store, database_url, open_engine

CHROMIUM = "/usr/bin/chromium"
ARGUMENTS = ["--no-sandbox"]  # containers run as root, which Chromium's sandbox refuses
TOKEN = "for the made-up past"
VISITS = 7
READY_SECONDS = 60

PAGES = (
    ("overview, 24 h", "/", False),
    ("overview, 30 d", "/?range=30d", False),
    ("scenario, 24 h", "/scenarios/travel", True),
    ("scenario, 30 d", "/scenarios/travel?range=30d", True),
    ("versions", "/scenarios/travel/versions", False),
    ("data health", "/data", False),
    ("look up a user", "/look-up?user=u-3", False),
)

PAINTED = """() => new Promise((resolve) => {
  const [visit] = performance.getEntriesByType("navigation");
  const painted = (list) => resolve([visit.responseEnd, list.getEntriesByName("first-contentful-paint")[0].startTime]);
  new PerformanceObserver(painted).observe({ type: "paint", buffered: true });
})"""


@contextlib.contextmanager
def furnished(folder: Path, days: float = 30.0) -> Iterator[tuple[str, psutil.Process]]:
    """A GATEWAY of its own process before a made-up past, as its URL and its process."""
    config = folder / "headstream.toml"
    scenarios = "\n".join(f"[scenarios.{name}]\ncontrol = 0.1" for name in NAMES)
    config.write_text(f'[gateway]\nport = 0\ntoken = "{TOKEN}"\n[kafka]\npartitions = 2\n{scenarios}\n')
    settings = load(config, {}, {"data": str(folder)})
    engine, now = open_engine(database_url(settings)), time.time()
    upgrade(engine)
    fill(History(engine), now, days=days)
    fill_catalogue(Store(engine, "past", "past"), settings, now)
    engine.dispose()
    with EmbeddedBroker(folder / "kafka") as broker:
        publish_records(broker.address, settings, now, NAMES[:5])
        command = [sys.executable, "-m", "streams.cli", "gateway", "--config", str(config), "--data", str(folder)]
        log = folder / "gateway.log"
        with log.open("w") as output:
            process = subprocess.Popen([*command, "--broker", broker.address], stdout=output, stderr=output)
            try:
                yield _address(log, process), psutil.Process(process.pid)
            finally:
                process.terminate()
                process.wait(30)


def _address(log: Path, process: subprocess.Popen[bytes]) -> str:
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        for line in log.read_text().splitlines():
            if "answers on" in line:
                return line.rsplit(" ", 1)[1].strip()
        time.sleep(0.1)
    raise SystemExit(f"GATEWAY did not start: {log.read_text()}")


def visit(browser: Browser, url: str, charts: bool) -> tuple[float, float, float]:
    """Milliseconds until the page had come, until something was painted, and until its charts were drawn."""
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    try:
        page = context.new_page()
        page.goto(url)
        if charts:
            page.wait_for_selector("html[data-whole]", timeout=60_000)
        drawn = page.evaluate("performance.getEntriesByName('charts drawn')[0].startTime") if charts else float("nan")
        came, painted = page.evaluate(PAINTED)
        return came, painted, drawn
    finally:
        context.close()


def measure(url: str, process: psutil.Process) -> None:
    print(f"| page, median (worst) of {VISITS} first visits, ms | page has come | first paint | charts drawn |")
    print("|---|---|---|---|")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        visit(browser, f"{url}/health", False)
        for says, path, charts in (("reference: one line of JSON", "/health", False), *PAGES):
            found = [visit(browser, url + path, charts) for _ in range(VISITS)]
            columns = [f"{statistics.median(each):.0f} ({max(each):.0f})" for each in zip(*found, strict=True)]
            print(f"| {says} | {columns[0]} | {columns[1]} | {columns[2] if charts else ''} |", flush=True)
        browser.close()
    memory = process.memory_full_info()
    print(f"\nGATEWAY afterwards: {memory.rss / 2**20:.0f} MiB resident, {memory.uss / 2**20:.0f} MiB its own")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--keep", action="store_true", help="serve until Ctrl-C and measure nothing")
    parser.add_argument("--days", type=float, default=30.0, help="how long the past is")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, furnished(Path(folder), arguments.days) as (url, process):
        if not arguments.keep:
            measure(url, process)
            return
        print(f"{url}, token: {TOKEN}", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            process.wait()


if __name__ == "__main__":
    main()
