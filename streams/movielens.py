"""MovieLens folders: ratings by time, and films that stand on five shelves by genre."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from operator import itemgetter
from pathlib import Path

from schemas.decoding import Invalid
from streams.columns import EVENT_COLUMNS, Row, check_columns, fields
from streams.tables import SourceDamaged, SourceMissing, delimited, table

SHELVES: tuple[tuple[str, frozenset[str]], ...] = (
    ("family", frozenset({"Children's", "Animation", "Musical", "Fantasy"})),
    ("thrill", frozenset({"Thriller", "Crime", "Mystery", "Horror", "Film-Noir"})),
    ("action", frozenset({"Action", "Adventure", "Sci-Fi", "War", "Western"})),
    ("comedy", frozenset({"Comedy"})),
)
LAST_SHELF = "drama"

RATING_COLUMNS = ("user_id", "item_id", "rating", "timestamp")
"""Of GroupLens' u.data, which has no header."""
FILM_COLUMNS = ("item_id:token", "movie_title:token_seq", "release_year:token", "class:token_seq")
"""Of RecBole's NAME.item."""


def shelf(genres: Sequence[str]) -> str:
    """The first shelf that one of the film's genres belongs on."""
    return next((name for name, wanted in SHELVES if not wanted.isdisjoint(genres)), LAST_SHELF)


class MovieLens:
    """MovieLens 100k as GroupLens or RecBole lay it out: ratings by time, films with title, year and genres.

    Its own scenarios are five shelves by genre.
    """

    home: str | None = "video"

    def __init__(self, folder: Path, event: str) -> None:
        self.name = f"MovieLens in {folder}"
        self._event = event
        recbole = sorted(folder.glob("*.inter"))
        if (folder / "u.data").is_file():
            files = [folder / "u.data", folder / "u.item", folder / "u.genre"]
        elif len(recbole) == 1:
            files = [recbole[0], recbole[0].with_suffix(".item")]
        else:
            raise SourceMissing(folder, "it must hold u.data, u.item and u.genre, or one NAME.inter with its NAME.item")
        for path in files:
            if not path.is_file():
                raise SourceMissing(path, "no such file, but a MovieLens folder needs it")
        self._ratings = files[0]
        if recbole:
            check_columns(self._ratings, RATING_COLUMNS[:2], EVENT_COLUMNS)
        films = list(_grouplens_films(*files[1:]) if len(files) == 3 else _recbole_films(files[1]))
        self._films = films
        self._events: list[Row] = []
        self._shelf_of = {row.record["item_id"]: row.scenario for row in films if not isinstance(row.record, Invalid)}

    def items(self) -> Iterator[Row]:
        return iter(self._films)

    def events(self) -> Iterator[Row]:
        """Ratings by time, those of one second in the order of the file; unreadable ones come first."""
        if not self._events:
            self._events = list(self._read_events())
        return iter(self._events)

    def _read_events(self) -> Iterator[Row]:
        ratings: list[tuple[float, Row]] = []
        ours = self._ratings.name == "u.data"
        rows = delimited(self._ratings, header=RATING_COLUMNS) if ours else table(self._ratings)
        for line, record in fields(rows, EVENT_COLUMNS):
            if isinstance(record, Invalid):
                yield Row(line, None, record)
                continue
            time = record.get("timestamp")
            if not isinstance(time, int | float):
                yield Row(line, None, Invalid("bad-time", f"timestamp {time!r} is not an epoch number"))
                continue
            record["event"] = self._event
            ratings.append((time, Row(line, self._shelf_of.get(record["item_id"], LAST_SHELF), record)))
        ratings.sort(key=itemgetter(0))
        for _, row in ratings:
            yield row


def _grouplens_films(items: Path, genres: Path) -> Iterator[Row]:
    names = [line.rsplit("|", 1)[0] for line in genres.read_text("latin-1").splitlines() if "|" in line]
    header = ("item_id", "title", "released", "video", "link", *names)
    for line, _, values in delimited(items, header=header, delimiter="|", encoding="latin-1"):
        if isinstance(values, Invalid):
            yield Row(line, None, values)
        else:
            yield _film(
                line,
                values[0],
                values[1],
                [name for name, mark in zip(header, values, strict=True) if mark == "1" and name in names],
            )


def _recbole_films(items: Path) -> Iterator[Row]:
    for line, names, values in delimited(items):
        if isinstance(values, Invalid):
            yield Row(line, None, values)
            continue
        if missing := [name for name in FILM_COLUMNS if name not in names]:
            raise SourceDamaged(items, f"it has no column {', '.join(missing)}")
        item_id, title, year, genres = (values[names.index(name)] for name in FILM_COLUMNS)
        yield _film(line, item_id, f"{title} ({year})" if year.isdigit() else title, genres.split())


def _film(line: int, item_id: str, title: str, genres: Sequence[str]) -> Row:
    return Row(line, shelf(genres), {"item_id": item_id, "title": title, "categories": list(genres)})
