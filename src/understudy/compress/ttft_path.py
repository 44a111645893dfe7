"""The way of one picture to the first token of an answer, with a clock at every stop."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from understudy.data.decode import decode
from understudy.models.multimodal.splice import IMAGE
from understudy.models.multimodal.vlm import VLM

PARTS = ("decode", "preprocess", "vision", "project", "prefill", "first_token")
"""What happens between a picture file and the first token of the answer."""


class Trace(NamedTuple):
    """Milliseconds of one round."""

    parts: dict[str, float]
    whole: float
    visual: float
    unstopped: float

    @property
    def total(self) -> float:
        """Sum of the parts."""
        return sum(self.parts.values())


class TokenPath:
    """The way from a picture file to the first token, in parts that can be timed.

    Args:
        model: in eval mode.
        prompt_tokens: text tokens, drawn at random.
        image_side: side of the picture in pixels; 0 for the model's resolution.
    """

    def __init__(self, model: VLM, prompt_tokens: int, image_side: int) -> None:
        self.model = model
        self.device = next(model.parameters()).device
        self.file = picture(image_side or model.preprocess.size)
        generator = torch.Generator().manual_seed(0)
        text = torch.randint(0, model.language.vocab_size, (prompt_tokens,), generator=generator)
        self.prompt = torch.cat([torch.tensor([IMAGE]), text]).to(self.device)
        self.image_only = torch.tensor([IMAGE], device=self.device)

    def steps(self) -> list[tuple[str, Callable[[Any], Any]]]:
        """Return the parts in order; each takes what the one before it gave."""
        model = self.model
        return [
            ("decode", lambda _: decode(self.file, name="the timed picture")),
            ("preprocess", lambda pixels: model.views(pixels).to(self.device)),
            ("vision", model.image.tokens),
            ("project", model.projector),
            ("prefill", lambda tokens: self.prefill(tokens, self.prompt)),
            ("first_token", lambda logits: int(logits.argmax(-1)[0])),
        ]

    def prefill(self, tokens: Tensor, prompt: Tensor) -> Tensor:
        """Return the first new token's logits."""
        made = self.model.join([prompt], [tokens.flatten(0, 1)])
        return self.model.prefill(made)[0]

    def wait(self) -> None:
        """Wait for a device that works ahead."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def trace(self) -> Trace:
        """Take the way once with stops, and the prefill of visual tokens alone after it."""
        found, value, projected = {}, None, None
        start = time.perf_counter()
        for name, step in self.steps():
            begin = time.perf_counter()
            value = step(value)
            self.wait()
            found[name] = (time.perf_counter() - begin) * 1e3
            if name == "project":
                projected = value
        whole = (time.perf_counter() - start) * 1e3
        begin = time.perf_counter()
        self.prefill(projected, self.image_only)  # type: ignore[arg-type]
        self.wait()
        return Trace(found, whole, (time.perf_counter() - begin) * 1e3, self.unstopped())

    def unstopped(self) -> float:
        """Return the milliseconds of the same way without stops."""
        begin, value = time.perf_counter(), None
        for _, step in self.steps():
            value = step(value)
        self.wait()
        return (time.perf_counter() - begin) * 1e3


def picture(side: int) -> bytes:
    """Return a PNG of a smooth square picture of a side in pixels, the same every time."""
    from PIL import Image

    ramp = np.linspace(0, 255, side)
    pixels = np.stack(np.broadcast_arrays(ramp[:, None], ramp[None], ramp[::-1][None]), -1)
    buffer = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()
