"""Any functions as a teacher."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from understudy.core.config import check_keys, from_dict
from understudy.core.errors import ConfigError
from understudy.core.hashing import hash_bytes
from understudy.models.preprocess import Preprocess
from understudy.reinforce.config import TeacherSpec
from understudy.reinforce.teachers.base import CAPABILITIES, Images, Teacher


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """Options of kind `callable`; functions are named `module:function`.

    Attributes:
        embed_images: takes images, returns `[B, D]`.
        embed_texts: takes a list of strings, returns `[B, D]`.
        classify: takes images, returns probabilities `[B, C]`.
        caption: takes images, a number and a list of seeds, returns a list of captions an image.
        version: part of the fingerprint; change it when what is behind the functions changes.
        size: side of the images that the functions take; 0 takes views as they are.
    """

    embed_images: str = ""
    embed_texts: str = ""
    classify: str = ""
    caption: str = ""
    version: str = ""
    size: int = 0


def find(name: str, where: str) -> Callable[..., Any]:
    """Import `module:function`.

    Raises:
        ConfigError: no such module or function.
    """
    module, colon, attribute = name.partition(":")
    if not (module and colon and attribute):
        raise ConfigError(f"{where}: expected 'module:function', got '{name}'.")
    try:
        found: Any = importlib.import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"{where}: '{name}' cannot be imported ({error}).") from None
    if not callable(found):
        raise ConfigError(f"{where}: '{name}' is not a function.")
    return found


def _describe(function: Callable[..., Any]) -> str:
    """Return what identifies a function: its source, or its name if that is out of reach."""
    try:
        return hash_bytes(inspect.getsource(function).encode())
    except (OSError, TypeError):
        owner = getattr(function, "__module__", "")
        return f"{owner}:{getattr(function, '__qualname__', type(function).__name__)}"


class FunctionTeacher(Teacher):
    """A teacher made of functions, one for each thing it can do.

    Args:
        name: what its columns are called.
        functions: by capability (`embed_images`, `embed_texts`, `classify`, `caption`).
        version: part of the fingerprint. The functions' source is in it too, but not what they
            call or hold: change the version when that changes.
        size: side of the images that the functions take, in pixels; 0 takes views as they are.
        logit_scale: factor of its logits in distillation.
    """

    kind: ClassVar[str] = "callable"

    def __init__(
        self,
        name: str,
        functions: Mapping[str, Callable[..., Any]],
        *,
        version: str = "",
        size: int = 0,
        logit_scale: float | None = None,
    ) -> None:
        check_keys(functions, CAPABILITIES, f"teacher '{name}'")
        if not functions:
            raise ConfigError(
                f"teacher '{name}': give at least one function ({', '.join(CAPABILITIES)})."
            )
        pixels = Preprocess(size=size, interpolation="bicubic") if size else None
        super().__init__(name, logit_scale=logit_scale, preprocess=pixels)
        self.functions = dict(functions)
        self.version = version
        self.capabilities = frozenset(functions)

    @classmethod
    def from_spec(cls, spec: TeacherSpec) -> FunctionTeacher:
        """Import the functions that the options name."""
        where = f"teacher '{spec.name}'.options"
        options = from_dict(Options, spec.options, where)
        named = {c: getattr(options, c) for c in CAPABILITIES if getattr(options, c)}
        functions = {c: find(name, f"{where}.{c}") for c, name in named.items()}
        return cls(
            spec.name,
            functions,
            version=options.version,
            size=options.size,
            logit_scale=spec.logit_scale,
        )

    def _identity(self) -> dict[str, Any]:
        described = {c: _describe(f) for c, f in sorted(self.functions.items())}
        return {"functions": described, "version": self.version}

    def _fitted(self, images: Images) -> Any:
        """Return the images at the functions' size: 8-bit or float levels, as they came."""
        import numpy as np
        import torch

        from understudy.reinforce.teachers.prepare import planar

        if self.preprocess is None:
            return images
        pixels: torch.Tensor = planar(images, self.preprocess)
        return np.ascontiguousarray(pixels.numpy().transpose(0, 2, 3, 1))

    def _image_features(self, images: Images) -> Any:
        return self.functions["embed_images"](self._fitted(images))

    def _text_features(self, texts: list[str]) -> Any:
        return self.functions["embed_texts"](texts)

    def _probabilities(self, images: Images) -> Any:
        return self.functions["classify"](self._fitted(images))

    def _captions(self, images: Images, num: int, seeds: list[int]) -> list[list[str]]:
        return self.functions["caption"](self._fitted(images), num, seeds)
