"""Checkpoints: whole or recognised as damaged, and never half written under their own name."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch

from learner.checkpoint import DamagedCheckpoint, read_checkpoint, write_checkpoint

FILES = ("tensors.safetensors", "facts.json", "manifest.json")
FACTS: dict[str, object] = {"step": 7, "names": ["ä", None], "nested": {"a": [1, 2.5]}}


def tensors() -> dict[str, torch.Tensor]:
    return {"a/b": torch.arange(6).view(2, 3), "none": torch.zeros(0, 4), "flag": torch.tensor(True)}


def test_what_was_written_is_read(tmp_path: Path) -> None:
    sha256 = write_checkpoint(tmp_path / "new" / "1", tensors(), FACTS)
    checkpoint = read_checkpoint(tmp_path / "new" / "1")
    assert checkpoint.facts == FACTS
    assert checkpoint.tensors.keys() == tensors().keys()
    assert all(torch.equal(tensor, checkpoint.tensors[name]) for name, tensor in tensors().items())
    assert sha256 == hashlib.sha256((tmp_path / "new" / "1" / "manifest.json").read_bytes()).hexdigest()


def test_the_sum_stands_for_every_byte(tmp_path: Path) -> None:
    first = write_checkpoint(tmp_path / "1", tensors(), FACTS)
    assert write_checkpoint(tmp_path / "2", tensors(), FACTS) == first
    assert write_checkpoint(tmp_path / "3", tensors(), {**FACTS, "step": 8}) != first


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["altered", "cut", "missing"])
def test_a_damaged_file_is_named(tmp_path: Path, name: str, damage: str) -> None:
    folder = tmp_path / "1"
    write_checkpoint(folder, tensors(), FACTS)
    content = bytearray((folder / name).read_bytes())
    if damage == "missing":
        (folder / name).unlink()
    else:
        content[len(content) // 2] ^= 1
        (folder / name).write_bytes(content if damage == "altered" else content[: len(content) // 2])
    with pytest.raises(DamagedCheckpoint, match="restore an older checkpoint") as raised:
        read_checkpoint(folder)
    # An altered manifest may still be one, and then contradicts the file that it speaks of.
    assert raised.value.file.name == name or name == "manifest.json"
    assert str(raised.value.file) in str(raised.value)


def test_an_unfinished_checkpoint_is_none(tmp_path: Path) -> None:
    folder = tmp_path / "1"
    write_checkpoint(folder, tensors(), FACTS)
    folder.rename(tmp_path / "2.unfinished")
    with pytest.raises(DamagedCheckpoint):
        read_checkpoint(tmp_path / "2")


def test_a_folder_is_replaced_whole(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "1", tensors(), FACTS)
    (tmp_path / "1" / "stray").write_text("of another time")
    write_checkpoint(tmp_path / "1", {"only": torch.ones(1)}, {})
    assert read_checkpoint(tmp_path / "1").tensors.keys() == {"only"}
    assert {file.name for file in (tmp_path / "1").iterdir()} == set(FILES)
    assert [folder.name for folder in tmp_path.iterdir()] == ["1"]
