"""The evaluation report as one page."""

from __future__ import annotations

from html import escape
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from learner.outcomes import COLD_USES, DEPTH, RESAMPLES, Report
from streams.evaluation_pictures import INK, Picture, drawing, pictures_of
from streams.evaluation_sheets import OURS, Sheet, facts, plain, sheets_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PAGE_DOTS_PER_INCH = 96

GUIDE = (
    ("Prequential", "Every event is first a test, then a lesson: each model makes its list before it sees what the "
     "person did, and only then learns from it. So no model is tested on what it has already seen."),
    (f"recall@{DEPTH}", f"The share of events whose item was among the {DEPTH} that the model would have shown. 0.250 "
     "means: in one case of four."),
    ("95 % interval", f"How much of a recall is luck in who came by. The users were drawn anew {RESAMPLES:,} times, "
     "each with all of its events; in 95 of 100 draws the recall lay within the interval. Where the intervals of two "
     "models lie apart, the difference is hardly chance."),
    (f"NDCG@{DEPTH} and MRR@{DEPTH}", "As recall, but an item counts for more the higher it stood in the list: in full "
     "when it stood first; MRR falls faster further down."),
    ("top-1", "The share of events whose item stood first. One item is wanted and one stands first, so it is accuracy, "
     "precision, recall and F1 at once."),
    (f"cold recall@{DEPTH}", f"Recall on new items alone: those that were used fewer than {COLD_USES} times before."),
    ("coverage", "The share of all items that may be recommended that stood in some list. A low one says that everyone "
     "is shown the same few."),
    ("Thirds", "Recall in the first, second and last third of the stream: whether a model gets better as it learns."),
    ("Examples per second", "Tested and learnt, of the model's own time."),
    ("headstream", "x 1.04 means: the recall of headstream is 1.04 times that of the model in the row."),
)  # fmt: skip


def write_page(report: Report, path: Path) -> None:
    """Write the report as one HTML file that loads nothing from elsewhere."""
    with drawing():
        pictures = {each.name: _figure(each) for each in pictures_of(report)}
    sections = [_section(sheet, pictures.get(sheet.picture, "")) for sheet in sheets_of(report)]
    guide = "\n".join(f"<div><dt>{escape(term)}</dt><dd>{escape(meaning)}</dd></div>" for term, meaning in GUIDE)
    title = escape(f"Evaluation on {plain(report.source)}")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{title}</title>
<style>{STYLE}</style>
</head>
<body>
<main>
<h1>{title}</h1>
<p>{escape(facts(report))}</p>
<details open>
<summary>How to read this</summary>
<dl>
{guide}
</dl>
</details>
{"".join(sections)}</main>
</body>
</html>
""",
        encoding="utf-8",
    )


STYLE = """
:root { --ink: #1f2429; --quiet: #5b6670; --line: #d7dce1; --paper: #ffffff; --ours: #fdf1e8; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6eaee; --quiet: #9aa5b0; --line: #39424b; --paper: #14181c; --ours: #33261c; }
}
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 72rem; margin: 0 auto; padding: 1rem; }
h1 { font-size: 1.6rem; line-height: 1.2; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 2.5rem 0 0.5rem; }
p, dd, figcaption { max-width: 46rem; overflow-wrap: anywhere; }
.note, figcaption { color: var(--quiet); font-size: 0.875rem; }
summary { font-weight: 600; cursor: pointer; }
dl { margin: 0.5rem 0; columns: 2 24rem; column-gap: 2rem; }
dl div { break-inside: avoid; padding-bottom: 0.5rem; }
dt { font-weight: 600; }
dd { margin: 0; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: max-content; font-size: 0.8125rem; font-variant-numeric: tabular-nums; }
th, td { padding: 0.3rem 0.45rem; border-bottom: 1px solid var(--line); text-align: right; }
td { white-space: nowrap; }
thead th { vertical-align: bottom; }
thead span { display: inline-block; width: min-content; min-width: 3rem; max-width: 9rem; overflow-wrap: break-word; }
tr > :first-child { text-align: left; position: sticky; left: 0; background: var(--paper); }
tbody th { font-weight: 400; max-width: 10rem; overflow-wrap: anywhere; }
.ours > *, .ours > :first-child { background: var(--ours); }
figure { margin: 1.5rem 0 0; }
svg { display: block; height: auto; width: 100%; }
"""


def _section(sheet: Sheet, figure: str) -> str:
    head = "".join(f'<th scope="col"><span>{escape(column.heading)}</span></th>' for column in sheet.columns)
    rows = "\n".join(_row(sheet, row) for row in range(len(sheet.models)))
    return f"""<section>
<h2>{escape(sheet.title)}</h2>
{f'<p class="note">{escape(sheet.note)}</p>' if sheet.note else ""}
<div class="wide" tabindex="0" role="region" aria-label="{escape(sheet.title)}">
<table>
<thead><tr><th scope="col">model</th>{head}</tr></thead>
<tbody>
{rows}
</tbody>
</table>
</div>
{figure}
</section>
"""


def _row(sheet: Sheet, row: int) -> str:
    cells = [
        f"<td><strong>{escape(column.cells[row])}</strong></td>"
        if row in column.best
        else f"<td>{escape(column.cells[row])}</td>"
        for column in sheet.columns
    ]
    mark = ' class="ours"' if sheet.models[row] == OURS else ""
    return f'<tr{mark}><th scope="row">{escape(sheet.models[row])}</th>{"".join(cells)}</tr>'


def _figure(picture: Picture) -> str:
    figure = picture.draw()
    return f"""<figure>
<div class="wide" tabindex="0" role="region" aria-label="{escape(picture.title)}">
{_svg(figure, picture.name)}
</div>
<figcaption>{escape(picture.title)}</figcaption>
</figure>"""


def _svg(figure: Figure, name: str) -> str:
    """The figure as an element of the page, its text as text, its ink the colour of the page's text."""
    stream = BytesIO()
    figure.savefig(stream, format="svg", transparent=True)
    root = ElementTree.fromstring(stream.getvalue())
    for child in [each for each in root if each.tag.endswith("}metadata")]:
        root.remove(child)
    for element in root.iter():
        # In HTML the names of SVG stand for themselves, and two figures may not share an id.
        element.tag = _local(element.tag)
        element.attrib = {_local(key): _own(_local(key), value, name) for key, value in element.attrib.items()}
    width = figure.get_figwidth() * PAGE_DOTS_PER_INCH
    root.attrib = {
        "viewBox": root.attrib["viewBox"],
        # Narrower, its letters would be too small to read: rather let it be moved sideways.
        "style": f"min-width: {0.67 * width:.0f}px; max-width: {1.1 * width:.0f}px",
    }
    return ElementTree.tostring(root, encoding="unicode")


def _local(qualified: str) -> str:
    return qualified.rpartition("}")[2]


def _own(key: str, value: str, name: str) -> str:
    if key == "id":
        return f"{name}-{value}"
    if key == "href":
        return value.replace("#", f"#{name}-", 1)
    return value.replace("url(#", f"url(#{name}-").replace(INK, "currentColor")
