"""Tokenizers and causal models whose losses can be checked by hand."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from understudy.core.hashing import hash_data


class Bytes:
    """A token is a byte; 256 ends a text."""

    end_id, vocab_size = 256, 257

    def encode(self, text):
        return list(text.encode())

    def decode(self, ids):
        kept = []
        for i in map(int, ids):
            if i == self.end_id:
                break
            kept.append(i)
        return bytes(kept).decode(errors="replace")

    def to_json(self):
        return "bytes"

    def fingerprint(self):
        return hash_data("bytes")


class Spaced(Bytes):
    """Letters with the space before them are one token, as in GPT's encodings."""

    vocab_size = 600

    def encode(self, text):
        out, at = [], 0
        while at < len(text):
            if text[at] == " " and at + 1 < len(text) and text[at + 1].isascii():
                out.append(300 + ord(text[at + 1]))
                at += 2
            else:
                out += list(text[at].encode())
                at += 1
        return out

    def decode(self, ids):
        text = b""
        for i in map(int, ids):
            if i == self.end_id:
                break
            text += b" " + bytes([i - 300]) if i >= 300 else bytes([i])
        return text.decode(errors="replace")


class Recurrent(nn.Module):
    """Logits depend on every earlier token, so that lost or added context shows."""

    def __init__(self, vocab_size=257, context=32, seed=0):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.table = nn.Embedding(vocab_size, 16)
            self.cell = nn.GRU(16, 16, batch_first=True)
            self.head = nn.Linear(16, vocab_size)
        with torch.no_grad():
            self.head.weight.mul_(6)
        self.vocab_size, self.context = vocab_size, context
        self.tokenizer = Bytes()
        self.calls = 0
        self.eval()

    def forward(self, ids, segments=None):
        self.calls += 1
        assert ids.shape[1] <= self.context
        return {"logits": self.head(self.cell(self.table(ids))[0])}


class Finishing(Recurrent):
    """The same model, which can leave out its head."""

    def __init__(self, **options):
        super().__init__(**options)
        self.head.bias.data.zero_()

    def forward(self, ids, segments=None, finish=None):
        states = self.cell(self.table(ids))[0]
        if finish is not None:
            return finish(states, self.head.weight)
        return {"logits": self.head(states)}


class Uniform(nn.Module):
    """Every token is equally likely."""

    def __init__(self, vocab_size, context=64):
        super().__init__()
        self.vocab_size, self.context = vocab_size, context
        self.eval()

    def forward(self, ids, segments=None):
        return torch.zeros(*ids.shape, self.vocab_size)


class Bigram(nn.Module):
    """The next token is decided by the last one: `table` maps token -> next token."""

    def __init__(self, table, vocab_size=257, context=256, sure=8.0):
        super().__init__()
        self.next = torch.full((vocab_size,), -1)
        for a, b in table.items():
            self.next[a] = b
        self.vocab_size, self.context, self.sure = vocab_size, context, sure
        self.tokenizer = Bytes()
        self.eval()

    def forward(self, ids, segments=None):
        logits = torch.zeros(*ids.shape, self.vocab_size)
        wanted = self.next[ids]
        logits.scatter_(-1, wanted.clamp(min=0)[..., None], self.sure)
        logits[wanted < 0] = 0.0
        return {"logits": logits}


def slow_losses(model, ids, context=None, last=None):
    """The loss of the last tokens (all from the second on), one forward each, in float64."""
    ids, out = list(map(int, ids)), []
    for at in range(1 if last is None else len(ids) - last, len(ids)):
        before = ids[:at] if context is None else ids[max(0, at - context) : at]
        outputs = model(torch.tensor([before]))
        logits = outputs if isinstance(outputs, torch.Tensor) else outputs["logits"]
        row = logits[0, -1].detach().numpy().astype(np.float64)
        out.append(float(np.log(np.exp(row - row.max()).sum()) + row.max() - row[ids[at]]))
    return np.array(out)
