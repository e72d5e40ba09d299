"""Checkpoints: a folder of tensors and JSON that is either whole or recognised as damaged."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec
import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from schemas.decoding import UNREADABLE
from schemas.failpoints import failpoint

TENSORS = "tensors.safetensors"
FACTS = "facts.json"
MANIFEST = "manifest.json"
UNFINISHED = ".unfinished"
REPLACED = ".replaced"

Facts = dict[str, object]


class DamagedCheckpoint(Exception):
    """A checkpoint that cannot be trusted.

    Attributes:
        file: the file at fault.
        reason: what is wrong with it.
    """

    def __init__(self, file: Path, reason: str) -> None:
        self.file = file
        self.reason = reason
        super().__init__(f"checkpoint file {file} {reason}; restore an older checkpoint, or start anew")


class CheckpointMismatch(Exception):
    """A checkpoint of a model that the present settings do not describe.

    Attributes:
        field: the setting.
        saved, present: its value in the checkpoint and now.
    """

    def __init__(self, field: str, saved: object, present: object) -> None:
        self.field = field
        self.saved = saved
        self.present = present
        super().__init__(f"the checkpoint was made with {field} = {saved!r}, the settings say {present!r}")


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint holds: tensors by name, and facts that JSON can say."""

    tensors: dict[str, Tensor]
    facts: Facts


class _Manifest(msgspec.Struct, frozen=True):
    """The SHA-256 of each file, in hexadecimal."""

    files: dict[str, str]


def write_checkpoint(folder: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, object]) -> str:
    """Write a checkpoint; after a crash at any moment the folder is whole, as it was before, or absent.

    Returns:
        The SHA-256 of its manifest, which stands for all of it.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished, replaced = folder.with_name(folder.name + UNFINISHED), folder.with_name(folder.name + REPLACED)
    for leftover in (unfinished, replaced):
        shutil.rmtree(leftover, ignore_errors=True)
    unfinished.mkdir()
    # 1. Every file, and then the list of them, is on disk under a name that nobody reads.
    contents = {
        TENSORS: save_tensors({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}),
        FACTS: msgspec.json.encode(facts),
    }
    manifest = msgspec.json.encode(_Manifest({name: _sha256(content) for name, content in contents.items()}))
    for name, content in {**contents, MANIFEST: manifest}.items():
        _write_through(unfinished / name, content)
        failpoint("checkpoint.write")
    sync_folder(unfinished)
    # 2. A folder of that name is moved out of the way, 3. the new one takes its name, 4. and the name is on disk.
    if folder.exists():
        folder.rename(replaced)
    unfinished.rename(folder)
    sync_folder(folder.parent)
    shutil.rmtree(replaced, ignore_errors=True)
    return _sha256(manifest)


def fingerprint(tensors: Mapping[str, Tensor]) -> str:
    """The SHA-256 of names, types, shapes and contents: whether two runs have come to the same, to the bit."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b"")
    return digest.hexdigest()


def read_checkpoint(folder: Path) -> Checkpoint:
    """Read a checkpoint, having checked every byte of it.

    Raises:
        DamagedCheckpoint: naming the file that is missing or altered.
    """
    try:
        manifest = msgspec.json.decode(_read(folder / MANIFEST), type=_Manifest)
    except UNREADABLE:
        raise DamagedCheckpoint(folder / MANIFEST, "is not a manifest") from None
    contents: dict[str, bytes] = {}
    for name in (TENSORS, FACTS):
        contents[name] = _read(folder / name)
        expected, found = manifest.files.get(name), _sha256(contents[name])
        if found != expected:
            raise DamagedCheckpoint(folder / name, f"has SHA-256 {found}, the manifest says {expected}")
    # The sums are right here: what cannot be read now was so when it was written.
    try:
        tensors = load_tensors(contents[TENSORS])
    except SafetensorError as error:
        raise DamagedCheckpoint(folder / TENSORS, f"holds no tensors ({error})") from None
    try:
        return Checkpoint(tensors, msgspec.json.decode(contents[FACTS], type=Facts))
    except UNREADABLE as error:
        raise DamagedCheckpoint(folder / FACTS, f"holds no facts ({error})") from None


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise DamagedCheckpoint(file, f"cannot be read ({error.strerror})") from error


def _write_through(file: Path, content: bytes) -> None:
    with file.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())


def sync_folder(folder: Path) -> None:
    """Have the names in a folder on disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
