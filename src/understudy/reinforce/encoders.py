"""Adapters to the encoder protocol: teachers, torch modules, n-grams, projections, functions.

Every kind of teacher (`reinforce.teachers.TEACHERS`: timm, OpenCLIP, Transformers, sentence
encoders, ONNX, models of this package) is an encoder through `TeacherEncoder`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from understudy.core.config import to_dict
from understudy.core.errors import ConfigError
from understudy.core.hashing import hash_bytes, hash_data
from understudy.core.seeds import rng
from understudy.models.io import weights_hash
from understudy.models.multimodal.dual import freeze
from understudy.models.multimodal.heads import mean_tokens
from understudy.models.preprocess import Preprocess, fit, to_tensor
from understudy.models.text.ngrams import NgramTokenizer, NgramTower
from understudy.reinforce.encoder_base import Encoded
from understudy.reinforce.teachers.base import Teacher


class TeacherEncoder:
    """One side of a teacher: its features before normalisation.

    Args:
        teacher: who is asked.
        modality: `"image"` or `"text"`.
        token_length: also give token features, padded or cut to this many; 0 gives none. The
            teacher needs a method `text_tokens` (or `image_tokens`), as sentence encoders have.
    """

    def __init__(
        self, teacher: Teacher, modality: Literal["image", "text"], token_length: int = 0
    ) -> None:
        if modality not in ("image", "text"):
            raise ConfigError(
                f"teacher '{teacher.name}' has no modality '{modality}'; expected image or text."
            )
        self._tokens = getattr(teacher, f"{modality}_tokens", None)
        if token_length and self._tokens is None:
            raise ConfigError(
                f"teacher '{teacher.name}' gives no {modality} tokens; use its pooled features."
            )
        self.teacher, self.modality, self.token_length = teacher, modality, token_length
        self.name, self.hash, self.tokens = teacher.name, teacher.fingerprint, token_length > 0
        self.module = getattr(teacher, "module", None)
        seen = to_dict(teacher.preprocess) if modality == "image" else "the teacher's tokenizer"
        self.preprocess: dict[str, Any] = {"modality": modality, "input": seen}
        self.dim = teacher.image_dim if modality == "image" else teacher.text_dim

    def truncated(self, texts: Sequence[str]) -> int:
        """Return how many texts are longer than it reads; 0 where it cannot tell."""
        tokenizer = getattr(self.teacher, "tokenizer", None)
        limit = getattr(getattr(self.teacher, "options", None), "max_length", 0)
        if not callable(tokenizer) or not limit:
            return 0
        limit = min(limit, self.token_length or limit)
        found = tokenizer(list(texts), truncation=False, verbose=False)["input_ids"]  # type: ignore[index]
        return sum(len(ids) > limit for ids in found)

    def encode(self, batch: Sequence[Any] | np.ndarray) -> Encoded:
        """Return its features of images uint8 [H, W, 3], or of texts."""
        if self.modality == "image":
            pooled = self.teacher.image_features(batch)
        else:
            pooled = self.teacher.text_features(list(batch))
        if self._tokens is None or not self.token_length:
            return pooled, None, None
        tokens, mask = self._tokens(list(batch))
        tokens, mask = tokens[:, : self.token_length], mask[:, : self.token_length]
        short = self.token_length - tokens.shape[1]
        tokens = np.pad(tokens, ((0, 0), (0, short), (0, 0)))
        return pooled, tokens, np.pad(mask, ((0, 0), (0, short)))


class ModuleEncoder:
    """A torch module on images of this package's preprocessing, frozen in place.

    Args:
        name: part of column names.
        module: maps float32 [B, 3, S, S] to [B, D], or has a method `features` that does.
        preprocess: what images go through.
        grid: the module has a method `stage_maps`; the last map's positions are the tokens.
    """

    def __init__(
        self, name: str, module: nn.Module, preprocess: Preprocess, *, grid: bool = False
    ) -> None:
        self.name, self.module, self.tokens = name, freeze(module), grid
        self._pixels = preprocess
        self.hash = hash_data([weights_hash(module), type(module).__name__])
        self.preprocess: dict[str, Any] = to_dict(preprocess)
        gray = np.full((1, preprocess.size, preprocess.size, 3), 127, np.uint8)
        self.dim = int(self.encode(gray)[0].shape[1])

    def inputs(self, batch: Sequence[Any] | np.ndarray) -> torch.Tensor:
        """Return the module's input: what an uncached tower is given."""
        return to_tensor(batch, self._pixels)

    def encode(self, batch: Sequence[Any] | np.ndarray) -> Encoded:
        """Return features of uint8 images."""
        pixels = self.inputs(batch)
        with torch.no_grad():
            features = getattr(self.module, "features", self.module)
            pooled = features(pixels).float().numpy()
            if not self.tokens:
                return pooled, None, None
            maps = self.module.stage_maps(pixels)[-1].float()  # type: ignore[operator]
        tokens = maps.flatten(2).transpose(1, 2).numpy()
        return pooled, tokens, np.ones(tokens.shape[:2], bool)


class NgramEncoder:
    """Texts as bags of n-grams: words are tokens, their mean is the pooled vector.

    Args:
        name: part of column names.
        module: a tower with a random table or one from `fit_lsa`; frozen in place.
        tokenizer: None makes the tower's own.

    Raises:
        ModelError: the tokenizer of another tower.
    """

    tokens = True

    def __init__(
        self, name: str, module: NgramTower, tokenizer: NgramTokenizer | None = None
    ) -> None:
        self.name, self.module, self.dim = name, module, module.width
        self.tokenizer = tokenizer or NgramTokenizer(module.config)
        module.check_tokenizer(self.tokenizer)
        freeze(module)
        self.hash = hash_data([weights_hash(module), "ngrams"])
        self.preprocess: dict[str, Any] = {"tokenizer": self.tokenizer.fingerprint()}

    def truncated(self, texts: Sequence[str]) -> int:
        """Return how many texts are longer than it reads."""
        return self.tokenizer.truncated(texts)

    def inputs(self, batch: Sequence[Any] | np.ndarray) -> torch.Tensor:
        """Return the tower's input: what an uncached or tuned tower is given."""
        return self.tokenizer(list(batch))

    def encode(self, batch: Sequence[Any] | np.ndarray) -> Encoded:
        """Return pooled vectors, word vectors and which are valid."""
        with torch.no_grad():
            tokens, mask = self.module(self.inputs(batch))
            pooled = mean_tokens(tokens, mask)
        return pooled.numpy(), tokens.numpy(), mask.numpy()


class FunctionEncoder:
    """A user's function as an encoder.

    Args:
        name: part of column names.
        function: maps a batch to features [B, D], or to (pooled, tokens, mask).
        dim: width of the features.
        hash: changes whenever the function's outputs may.
        tokens: whether it returns tokens.
        preprocess: plain data; changes whenever its preparation of inputs does.
    """

    def __init__(
        self,
        name: str,
        function: Callable[[Any], Any],
        dim: int,
        hash: str,
        *,
        tokens: bool = False,
        preprocess: dict[str, Any] | None = None,
    ) -> None:
        self.name, self.function, self.dim, self.hash = name, function, dim, hash
        self.tokens, self.preprocess = tokens, dict(preprocess or {})

    def encode(self, batch: Sequence[Any] | np.ndarray) -> Encoded:
        """Call the function."""
        found = self.function(batch)
        pooled, tokens, mask = found if isinstance(found, tuple) else (found, None, None)
        return (
            np.asarray(pooled, np.float32),
            None if tokens is None else np.asarray(tokens, np.float32),
            None if mask is None else np.asarray(mask, bool),
        )


class RandomConvEncoder:
    """Random 3x3 convolutions, ReLU, pooling, then a whitened PCA of the responses.

    Nothing is trained by gradients: the filters are drawn, the PCA is fitted to unlabelled images
    (the single-layer networks of Coates et al., AISTATS 2011, with random filters).

    Args:
        name: part of column names.
        images: uint8 [N, S, S, 3] without labels.
        dim: components kept.
        filters: number of random filters.
        grid: side of the grid that responses are averaged to.
        seed: of the filters.
        preprocess: what images of other sizes go through; None takes them as they are.
    """

    tokens = False

    def __init__(
        self,
        name: str,
        images: np.ndarray,
        dim: int,
        *,
        filters: int = 128,
        grid: int = 3,
        seed: int = 0,
        preprocess: Preprocess | None = None,
    ) -> None:
        draw = rng("random-conv", seed)
        kernels = draw.standard_normal((filters, 3, 3, 3)).astype(np.float32)
        kernels -= kernels.mean((1, 2, 3), keepdims=True)
        self._kernels = torch.from_numpy(kernels / np.linalg.norm(kernels.reshape(filters, -1)))
        self._kernels *= filters**0.5
        self.name, self.dim, self.grid = name, dim, grid
        self._pixels = preprocess
        self.preprocess: dict[str, Any] = {"input": to_dict(preprocess), "grid": grid}
        responses = self._responses(images)
        if dim > min(responses.shape):
            raise ConfigError(
                f"encoder '{name}': {dim} components of {len(images)} images and "
                f"{responses.shape[1]} responses; lower dim or give more images."
            )
        self._mean = responses.mean(0)
        centred = (responses - self._mean).astype(np.float64)
        variances, vectors = np.linalg.eigh(centred.T @ centred / len(centred))
        right = vectors[:, ::-1][:, :dim].T
        strongest = np.abs(right).argmax(1)
        right = right * np.sign(right[np.arange(dim), strongest])[:, None]
        # Half whitening: components keep some of their order, noise is not blown up.
        scale = variances[::-1][:dim].clip(min=1e-12) ** 0.25
        self._basis = (right / scale[:, None]).T.astype(np.float32)
        self.hash = hash_bytes(
            self._kernels.numpy().tobytes(), self._mean.tobytes(), self._basis.tobytes()
        )

    def _responses(self, images: Sequence[Any] | np.ndarray) -> np.ndarray:
        arrays = [np.asarray(image) for image in images]
        if self._pixels is not None:
            arrays = [fit(image, self._pixels) for image in arrays]
        pixels = torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2)
        maps = nn.functional.conv2d(pixels.float() / 255, self._kernels, padding=1)
        both = torch.cat([maps.relu(), (-maps).relu()], 1)
        return nn.functional.adaptive_avg_pool2d(both, self.grid).flatten(1).numpy()

    def encode(self, batch: Sequence[Any] | np.ndarray) -> Encoded:
        """Return the components of images of one size."""
        return (self._responses(batch) - self._mean) @ self._basis, None, None
