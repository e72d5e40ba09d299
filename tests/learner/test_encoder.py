"""The text encoder that is installed with us."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from learner.encoder import EncoderMissing, TextEncoder
from tests.learner.builders import assert_near


@pytest.fixture(scope="module")
def encoder() -> TextEncoder:
    return TextEncoder("")


def test_texts_of_like_meaning_are_near_each_other(encoder: TextEncoder) -> None:
    shoe, boot, theorem = encoder.encode(["running shoe", "trail running boots", "a proof in number theory"])
    assert shoe @ boot > 0.5 > shoe @ theorem


def test_vectors_have_length_one_and_no_text_is_zero(encoder: TextEncoder) -> None:
    vectors = encoder.encode(["a", "", "   ", "many words " * 200])
    assert vectors.shape == (4, encoder.dimension) == (4, 384)
    assert vectors.dtype == torch.float32
    assert_near(vectors.norm(dim=1), torch.tensor([1.0, 0.0, 0.0, 1.0]))
    assert encoder.encode([]).shape == (0, 384)


def test_the_order_and_company_of_texts_do_not_matter(encoder: TextEncoder) -> None:
    texts = [f"{'very ' * (number % 17)}long title number {number}" for number in range(70)]
    together = encoder.encode(texts)
    assert_near(together[[3, 69]], encoder.encode([texts[3], texts[69]]))


def test_what_follows_the_64th_token_is_not_read(encoder: TextEncoder) -> None:
    start = "word " * 80
    assert_near(encoder.encode([start + "shoe"]), encoder.encode([start + "theorem"]))


def test_the_callers_threads_are_left_alone(encoder: TextEncoder) -> None:
    before = torch.get_num_threads()
    TextEncoder("", threads=2).encode(["a text"])
    assert torch.get_num_threads() == before
    assert not encoder.encode(["a text"]).requires_grad


def test_a_missing_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(EncoderMissing, match=r"model\.encoder is .* cannot be loaded") as raised:
        TextEncoder(str(tmp_path))
    assert raised.value.name == str(tmp_path)
