"""Pictures of a running dashboard, small enough for the documentation.

    uv run python -m benchmarks.screenshots URL /=overview.png /scenarios/shop=scenario.png

To have something to look at without a stream of events: `python -m benchmarks.dashboard --keep`.
"""

from __future__ import annotations

import argparse
import io
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

from benchmarks.dashboard import ARGUMENTS, CHROMIUM

COLOURS = 256
"""Of the picture's own palette."""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("url", help="where GATEWAY answers")
    parser.add_argument("pictures", nargs="+", metavar="PATH=FILE", help="a page's path, and where its picture goes")
    parser.add_argument("--theme", choices=("light", "dark"), default="light")
    parser.add_argument("--width", type=int, default=1440, help="of the window; 390 is a telephone")
    parser.add_argument("--height", type=int, default=1000)
    parser.add_argument("--whole", action="store_true", help="the page to its end, not the window alone")
    parser.add_argument("--time-zone", default="UTC")
    arguments = parser.parse_args()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        page = browser.new_page(
            viewport={"width": arguments.width, "height": arguments.height},
            color_scheme=arguments.theme,
            timezone_id=arguments.time_zone,
        )
        for picture in arguments.pictures:
            path, _, file = picture.rpartition("=")
            page.context.clear_cookies()  # a range that one picture asks for is not chosen for the next
            page.goto(arguments.url.rstrip("/") + path)
            page.wait_for_selector("html[data-whole]", state="attached", timeout=60_000)
            taken = Image.open(io.BytesIO(page.screenshot(full_page=arguments.whole)))
            small = taken.convert("RGB").quantize(COLOURS, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
            small.save(file, optimize=True)
            print(f"{file}: {small.width} x {small.height}, {Path(file).stat().st_size / 1000:.0f} kB")
        browser.close()


if __name__ == "__main__":
    main()
