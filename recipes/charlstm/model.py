"""A character-level language model: an embedding, one LSTM layer and a linear layer.

Hochreiter and Schmidhuber, "Long short-term memory", Neural Computation 9(8), 1997; its use on
characters after Graves, arXiv:1308.0850.
"""

import torch
from data import VOCABULARY
from torch import nn

EMBEDDING, HIDDEN = 32, 192


class CharLSTM(nn.Module):
    """[N, T] int64, places in the vocabulary -> scores of the next character [N, T, 96]."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(len(VOCABULARY), EMBEDDING)
        self.lstm = nn.LSTM(EMBEDDING, HIDDEN, batch_first=True)
        self.classifier = nn.Linear(HIDDEN, len(VOCABULARY))

    def forward(self, characters: torch.Tensor) -> torch.Tensor:
        states, _ = self.lstm(self.embedding(characters))
        return self.classifier(states)


def build() -> CharLSTM:
    return CharLSTM()
