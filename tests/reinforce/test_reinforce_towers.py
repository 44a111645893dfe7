"""Text encoders that are tuned: as long as the encoder reads, pooled as it was trained."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from understudy.reinforce.encoders import TeacherEncoder
from understudy.reinforce.teachers.sentence import Options, SentenceTeacher
from understudy.reinforce.towers import text_tower


class Words(nn.Module):
    """Stands for a Transformers encoder: one vector an id."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(50, 4)

    def forward(self, input_ids, attention_mask):
        return SimpleNamespace(last_hidden_state=self.table(input_ids))


class Batch(dict):
    def to(self, device):
        return self


class Splits:
    """Stands for its tokenizer: one id a word, the length of the word."""

    def get_vocab(self):
        return {"a": 1}

    def __call__(self, texts, *, truncation, max_length=None, padding=True, **options):
        rows = [[min(len(word), 49) for word in text.split()] for text in texts]
        rows = [row[:max_length] if truncation else row for row in rows]
        if padding == "max_length":
            wide = max_length
        else:
            wide = max(map(len, rows))
        ids = torch.tensor([row + [0] * (wide - len(row)) for row in rows])
        return Batch(input_ids=ids, attention_mask=(ids > 0).long())


def encoder(**options):
    torch.manual_seed(0)
    module = Words().eval().requires_grad_(False)
    teacher = SentenceTeacher("ear", module, Splits(), options=Options(device="cpu", **options))
    return TeacherEncoder(teacher, "text")


def test_a_tuned_tower_reads_as_far_as_its_encoder():
    long = " ".join(["word"] * 60)
    tower, inputs = text_tower(encoder(max_length=48))
    assert inputs(["a cat", long]).shape == (2, 2, 48)
    # no longer than the longest text
    assert inputs(["a cat", "an old cat"]).shape == (2, 2, 3)
    assert all(p.requires_grad for p in tower.parameters())


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_a_tuned_tower_starts_from_what_its_encoder_says(pooling):
    texts = ["a cat", "one very old whale"]
    frozen = encoder(pooling=pooling)
    tower, inputs = text_tower(frozen)
    found = tower(inputs(texts))
    if pooling == "mean":
        tokens, mask = found
        found = (tokens * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
    assert torch.allclose(found, torch.from_numpy(frozen.encode(texts)[0]), atol=1e-6)
