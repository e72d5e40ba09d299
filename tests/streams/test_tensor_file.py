"""Files of tensors: what is read is all that was written, or the file is named with its fault."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor

from streams.tensor_file import UNFINISHED, DamagedFile, Sliced, packed, read_tensors, unpacked, write_tensors

FACTS = '{"who": "ü"}'.encode()


def tensors() -> list[Sliced]:
    wide, flags = torch.arange(6, dtype=torch.float64).view(2, 3), torch.tensor([True, False, True])
    return [
        Sliced("wide", torch.float64, (2, 3), iter((wide[:1], wide[1:]))),
        Sliced("nothing", torch.int64, (0, 4), iter(())),
        Sliced("flags", torch.bool, (3,), iter((flags[:2], flags[2:]))),
        Sliced("bytes", torch.uint8, (-1,), packed([b"one", b"", b"three"])),
    ]


def test_what_is_read_is_what_was_written(tmp_path: Path) -> None:
    file = tmp_path / "made" / "on the way" / "f"
    assert write_tensors(file, FACTS, tensors()) == file.stat().st_size
    found = read_tensors(file)
    assert found.facts == FACTS
    assert list(found.tensors) == ["wide", "nothing", "flags", "bytes"]
    assert found.tensors["wide"].tolist() == [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]
    assert (found.tensors["nothing"].shape, found.tensors["flags"].tolist()) == ((0, 4), [True, False, True])
    assert [bytes(chunk) for chunk in unpacked(found.tensors["bytes"])] == [b"one", b"", b"three"]
    assert [each.name for each in file.parent.iterdir()] == ["f"]


def test_anybody_who_reads_safetensors_reads_it(tmp_path: Path) -> None:
    write_tensors(tmp_path / "f", FACTS, tensors())
    assert load_file(tmp_path / "f")["wide"].sum() == 15


def test_slices_are_copied_when_they_are_reached_and_what_is_hashed_is_what_is_written(tmp_path: Path) -> None:
    table = torch.zeros(4)

    def slices() -> Iterator[Tensor]:
        for row in range(4):
            table[row] = row
            yield table[row : row + 1]

    write_tensors(tmp_path / "f", FACTS, [Sliced("t", torch.float32, (4,), slices())], pause=lambda: table.fill_(9))
    assert read_tensors(tmp_path / "f").tensors["t"].tolist() == [0, 1, 2, 3]


@given(st.data())
def test_a_byte_that_changed_or_is_missing_is_always_noticed(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    file = tmp_path_factory.mktemp("damaged") / "f"
    write_tensors(file, FACTS, tensors())
    content = bytearray(file.read_bytes())
    end_of_header = content.index(b" " * 100)  # blanks fill it up, and say nothing
    begin_of_numbers = 8 + int.from_bytes(content[:8], "little")
    at = data.draw(st.integers(0, end_of_header - 1) | st.integers(begin_of_numbers, len(content) - 1))
    if data.draw(st.booleans()):
        content[at] ^= 1 << data.draw(st.integers(0, 7))
    else:
        del content[data.draw(st.integers(0, len(content) - 1)) :]
    file.write_bytes(content)
    with pytest.raises(DamagedFile, match=str(file)):
        read_tensors(file)


def test_a_file_that_is_not_there_is_no_damage(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_tensors(tmp_path / "f")


def test_a_folder_or_another_file_in_its_place_is_named(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "text").write_text("hello")
    for name in ("folder", "text"):
        with pytest.raises(DamagedFile, match=f"{tmp_path / name} is no whole file of tensors"):
            read_tensors(tmp_path / name)


def test_a_writer_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    write_tensors(tmp_path / "f", FACTS, tensors())
    short = Sliced("short", torch.float32, (3,), iter((torch.zeros(2),)))
    with pytest.raises(ValueError, match="the slices of short hold 2 numbers"):
        write_tensors(tmp_path / "f", b"new", [short])
    assert read_tensors(tmp_path / "f").facts == FACTS
    assert [each.name for each in tmp_path.iterdir()] == ["f"]


def test_what_a_killed_writer_left_is_removed_and_what_another_one_is_writing_stays(tmp_path: Path) -> None:
    (tmp_path / f"f.left{UNFINISHED}").write_bytes(b"half")
    held = tmp_path / f"f.held{UNFINISHED}"
    with held.open("wb") as stream:  # a lock belongs to what was opened, so one of this process is as good
        fcntl.flock(stream, fcntl.LOCK_EX)
        write_tensors(tmp_path / "f", FACTS, tensors())
    assert sorted(each.name for each in tmp_path.iterdir()) == ["f", held.name]
