"""Small stores, pictures and models whose scores are known."""

import io

import numpy as np
import torch
from PIL import Image
from torch import nn

from understudy import models
from understudy.data.store import Store
from understudy.models.text.train_tokenizer import train_words

COLOURS = {"red": (200, 20, 20), "green": (20, 200, 20), "blue": (20, 20, 200)}
NAMES = tuple(COLOURS)


def png(colour, size=32):
    out = io.BytesIO()
    Image.fromarray(np.full((size, size, 3), colour, np.uint8)).save(out, "PNG")
    return out.getvalue()


def pictures(root, counts, shift=0):
    """Write `root/<class>/<i>.png`; colours move by `shift`."""
    for name, count in counts.items():
        (root / name).mkdir(parents=True)
        for i in range(count):
            colour = [min(c + shift + i, 255) for c in COLOURS[name]]
            (root / name / f"{i}.png").write_bytes(png(colour))
    return root


class MeanColour(nn.Module):
    """Stands for an image tower: the mean of each channel, raised to tell channels apart."""

    def __init__(self, sharpness=8.0):
        super().__init__()
        self.sharpness = nn.Parameter(torch.tensor(sharpness))

    def forward(self, images):
        return images.mean((2, 3)) * self.sharpness


def colour_classifier(**changes):
    """A `cnn-tiny` whose tower is replaced by mean colours: right on pure pictures."""
    model = models.create("cnn-tiny", seed=0, num_classes=3, **changes).eval()
    model.image = MeanColour()
    return model


class WordVectors(nn.Module):
    """Stands for a text tower: the one-hot vector of the first colour word."""

    def __init__(self, ids):
        super().__init__()
        self.ids = ids

    def forward(self, tokens):
        hits = torch.stack([(tokens == i).any(1) for i in self.ids], 1).float()
        return hits + 1e-3


def colour_clip():
    """A CLIP that matches pictures and captions by their colour."""
    tokenizer = train_words(["a photo of a red green blue thing"], context_length=12)
    model = models.create(
        "clip-conv-nano", seed=0, tokenizer=tokenizer, embed_dim=3, text={"context_length": 12}
    ).eval()
    model.image = MeanColour()
    model.text = WordVectors([tokenizer.encode(name)[0] for name in NAMES])
    return model


def colour_store(path, meta=True, extra=None, **columns):
    """Six pictures, two a colour; the first three are `split='test'`."""
    rows = {
        "id": [f"s{i}" for i in range(6)],
        "image": [
            png([min(c + 5 * (i // 3), 255) for c in COLOURS[NAMES[i % 3]]]) for i in range(6)
        ],
        "text": [f"a {NAMES[i % 3]} thing" for i in range(6)],
        "label": [i % 3 for i in range(6)],
        "split": ["test"] * 3 + ["train"] * 3,
        **columns,
    }
    rows = {name: values for name, values in rows.items() if values is not None}
    return Store.create(path, [rows], meta={"classes": list(NAMES)} if meta else None)
