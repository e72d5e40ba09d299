"""The report as pictures, of whatever was found."""

from __future__ import annotations

import struct
import subprocess
import sys
from pathlib import Path

import pytest

from learner.outcomes import Forgetting, Report
from streams.evaluation_pictures import write_pictures
from tests.streams.reports import eleven_models, figures, hostile_report, kept, page, printed, report, three_models

UNTESTED = Forgetting(matrix=[[None] * 2] * 2, forgetting=None, backward_transfer=None, final_average=None)


def size(picture: Path) -> tuple[int, int]:
    """Width and height in dots, as a PNG's first chunk has them."""
    head = picture.read_bytes()[:24]
    assert head.startswith(b"\x89PNG\r\n\x1a\n")
    return struct.unpack(">II", head[16:])


def test_the_pictures_are_png_files_of_a_size_that_fits_a_screen(tmp_path: Path) -> None:
    paths = write_pictures(eleven_models(), tmp_path / "new" / "folder")
    assert [path.relative_to(tmp_path / "new" / "folder").as_posix() for path in paths] == [
        "quality.png", "recall.png", "forgetting.png",
    ]  # fmt: skip
    for width, height in map(size, paths):
        assert 1000 <= width <= 2000
        assert 500 <= height <= 2000


def test_there_is_no_picture_of_forgetting_that_was_not_measured(tmp_path: Path) -> None:
    paths = write_pictures(report(three_models()), tmp_path)
    assert [path.name for path in paths] == ["quality.png", "recall.png"]
    assert sorted(tmp_path.iterdir()) == sorted(paths)


@pytest.mark.parametrize(
    "found",
    [
        hostile_report(),
        report({"headstream": figures(0.25, {"shop": 0.25})}),
        report({"headstream": figures(0.0, {"shop": None, "news": None})}),
        report({"headstream": figures(0.3, {"shop": 0.3}, curve={"shop": [None, 0.3, None, 0.2, 0.4]})}),
        report({"headstream": figures(0.3, {"shop": 0.3})}, blocks=("shop",), forgetting={"headstream": kept([[0.3]])}),
        report(
            {"headstream": figures(0.3, {"shop": 0.3})}, blocks=("shop", "news"), forgetting={"headstream": UNTESTED}
        ),
    ],
    ids=["hostile names", "one model", "no events", "gaps", "one block", "nothing held out"],
)
def test_pictures_and_page_are_made_of_whatever_was_found(found: Report, tmp_path: Path) -> None:
    for path in write_pictures(found, tmp_path):
        assert min(size(path)) > 200
    assert page(found, tmp_path).tags.count("svg") == 2 + bool(found.forgetting)


def test_a_report_without_models_has_no_pictures(tmp_path: Path) -> None:
    assert write_pictures(report({}), tmp_path) == []
    assert "svg" not in page(report({}), tmp_path).tags
    assert "81,234" in printed(report({}))


def test_a_model_has_the_same_colour_in_every_panel_and_in_the_legend_that_stands_once(tmp_path: Path) -> None:
    models = {name: figures(0.3, {"shop": 0.2, "news": 0.3, "video": 0.4}) for name in ("headstream", "sasrec")}
    found = page(report(models), tmp_path)
    for colour in ("#d55e00", "#0072b2"):
        drawn = [style for style in found.values("style") if f"stroke: {colour}" in style and "fill: none" in style]
        assert len(drawn) == 3 + 1


def test_matplotlib_is_loaded_only_when_pictures_are_made() -> None:
    code = "import sys, streams.evaluation_page, streams.evaluation_pictures; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
