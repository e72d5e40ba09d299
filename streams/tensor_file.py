"""Files of tensors in the format of safetensors: written slice by slice, read by memory map, whole or known as damaged.

A file holds facts beside the tensors. The SHA-256 of both stands in the header, which is written last: the file is made
under another name, and gets its own once all of it is on disk. So nothing needs to be held in memory to be written, and
what is read is what was written, all of it.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import math
import os
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from torch import Tensor

from learner.checkpoint import sync_folder
from schemas.failpoints import failpoint

UNFINISHED = ".unfinished"
HEADER_BYTES = 1 << 14
"""Kept free for the header, beside room for the facts; what is not needed is filled with blanks."""
LONGEST_ESCAPE = 6
"""Characters that JSON may make of one."""

NAMES = {
    torch.float64: "F64", torch.float32: "F32", torch.int64: "I64", torch.int32: "I32", torch.uint8: "U8",
    torch.bool: "BOOL",
}  # fmt: skip
"""What safetensors calls the types that can be written."""


class DamagedFile(Exception):
    """A file of tensors that cannot be trusted.

    Attributes:
        file: which.
        reason: what is wrong with it.
    """

    def __init__(self, file: Path, reason: str) -> None:
        super().__init__(f"{file} {reason}")
        self.file = file
        self.reason = reason


@dataclass(frozen=True)
class Sliced:
    """A tensor that comes in slices.

    Attributes:
        shape: where a dimension is -1, it is as long as the slices make it.
        slices: its numbers in the order of the file; each is copied when it is reached.
    """

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    slices: Iterable[Tensor]


@dataclass(frozen=True)
class TensorFile:
    """What a file holds; the tensors are mapped, not loaded."""

    facts: bytes
    tensors: Mapping[str, Tensor]


def write_tensors(
    file: Path, facts: bytes, tensors: Iterable[Sliced], *, pause: Callable[[], object] = lambda: None
) -> int:
    """Write a file; after a crash at any moment it is whole, as it was before, or absent. Any number may write at once.

    Args:
        facts: UTF-8.
        tensors: those with the longest numbers first, or those behind cannot be mapped.
        pause: called after each slice.

    Returns:
        Its size in bytes.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(file)
    unfinished = file.with_name(f"{file.name}.{uuid.uuid4().hex}{UNFINISHED}")
    try:
        with unfinished.open("xb") as stream:
            # 1. Held as long as we write: who finds it free may remove it.
            fcntl.flock(stream, fcntl.LOCK_EX)
            # 2. The numbers, behind room for the header; 3. the header; 4. all of it is on disk.
            room = (HEADER_BYTES + LONGEST_ESCAPE * len(facts)) // 8 * 8
            stream.seek(8 + room)
            header = _write_slices(stream, facts, tensors, pause)
            stream.seek(0)
            stream.write(room.to_bytes(8, "little") + json.dumps(header).encode().ljust(room))
            stream.flush()
            os.fsync(stream.fileno())
            size = os.fstat(stream.fileno()).st_size
        # 5. It takes its name, 6. and the name is on disk.
        unfinished.replace(file)
        sync_folder(file.parent)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
    return size


def _write_slices(
    stream: BinaryIO, facts: bytes, tensors: Iterable[Sliced], pause: Callable[[], object]
) -> dict[str, object]:
    """Write the numbers; returns the header that describes them."""
    digest, end = hashlib.sha256(facts), 0
    header: dict[str, object] = {}
    for tensor in tensors:
        begin = end
        for part in tensor.slices:
            content = part.detach().cpu().contiguous().numpy().tobytes()  # a copy: what is hashed is what is written
            digest.update(content)
            stream.write(content)
            end += len(content)
            failpoint("snapshot.write")
            pause()
        shape = _full_shape(tensor, (end - begin) // tensor.dtype.itemsize)
        header[tensor.name] = {"dtype": NAMES[tensor.dtype], "shape": shape, "data_offsets": [begin, end]}
        digest.update(_label(tensor.name, tensor.dtype, shape))
    header["__metadata__"] = {"facts": facts.decode(), "sha256": digest.hexdigest()}
    return header


def read_tensors(file: Path) -> TensorFile:
    """Read a file, having checked every byte of it.

    Raises:
        FileNotFoundError: there is none.
        DamagedFile: it is not as it was written.
    """
    try:
        with safe_open(file, framework="pt") as opened:
            metadata = opened.metadata() or {}
            tensors = {name: opened.get_tensor(name) for name in opened.offset_keys()}
    except FileNotFoundError:
        raise
    except (SafetensorError, OSError) as error:
        raise DamagedFile(file, f"is no whole file of tensors ({error})") from None
    facts = metadata.get("facts", "").encode()
    digest = hashlib.sha256(facts)
    for name, tensor in tensors.items():
        digest.update(tensor.numpy().reshape(-1).view(np.uint8))
        digest.update(_label(name, tensor.dtype, list(tensor.shape)))
    if digest.hexdigest() != metadata.get("sha256"):
        raise DamagedFile(file, f"has SHA-256 {digest.hexdigest()}, its header says {metadata.get('sha256')}")
    return TensorFile(facts, tensors)


def packed(chunks: Iterable[bytes]) -> Iterator[Tensor]:
    """Chunks of bytes as slices of one uint8 tensor, out of which `unpacked` gets them back."""
    for chunk in chunks:
        yield torch.frombuffer(bytearray(len(chunk).to_bytes(8, "little") + chunk), dtype=torch.uint8)


def unpacked(tensor: Tensor) -> Iterator[memoryview]:
    """The chunks that were `packed`; views of the tensor."""
    numbers: NDArray[np.uint8] = tensor.numpy()
    content, at = numbers.data, 0
    while at < len(content):
        begin = at + 8
        at = begin + int.from_bytes(content[at:begin], "little")
        yield content[begin:at]


def _full_shape(tensor: Sliced, count: int) -> list[int]:
    known = math.prod(length for length in tensor.shape if length >= 0)
    shape = [count // max(known, 1) if length < 0 else length for length in tensor.shape]
    if math.prod(shape) != count:
        raise ValueError(f"the slices of {tensor.name} hold {count} numbers; its shape is {tensor.shape}")
    return shape


def _label(name: str, dtype: torch.dtype, shape: list[int]) -> bytes:
    return f"{name} {NAMES.get(dtype)} {shape}".encode()


def _remove_abandoned(file: Path) -> None:
    """Remove what a writer of this file left when it was killed."""
    for left in file.parent.glob(f"{file.name}.*{UNFINISHED}"):
        try:
            with left.open("rb") as stream:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                left.unlink()
        except (BlockingIOError, FileNotFoundError):
            continue
