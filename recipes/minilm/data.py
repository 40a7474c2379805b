"""English sentences as BERT's tokens.

Evaluation takes those of sentences.txt, in groups of like meaning; calibration those of
calibration.txt, on other matters. Empty lines part the groups.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from package import TOKENS, files
from tokenizers import Tokenizer

HERE = Path(__file__).parent

Inputs = tuple[np.ndarray, np.ndarray]


def groups(name: str) -> list[list[str]]:
    return [group.splitlines() for group in (HERE / name).read_text("utf-8").split("\n\n")]


def tokenized(sentences: list[str]) -> Iterator[Inputs]:
    """input_ids and attention_mask, [1, 32] int64 each: cut, or filled up with padding."""
    tokenizer = Tokenizer.from_file(str(files() / "tokenizer.json"))
    tokenizer.enable_truncation(TOKENS)
    tokenizer.enable_padding(length=TOKENS)
    for sentence in sentences:
        encoded = tokenizer.encode(sentence)
        yield np.array([encoded.ids]), np.array([encoded.attention_mask])


def calibration() -> Iterator[Inputs]:
    yield from tokenized([s for group in groups("calibration.txt") for s in group])


def evaluation() -> Iterator[tuple[Inputs, int]]:
    """The label is the number of the group."""
    for number, group in enumerate(groups("sentences.txt")):
        for inputs in tokenized(group):
            yield inputs, number
