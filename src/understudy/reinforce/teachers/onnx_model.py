"""ONNX files as teachers, run by ONNX Runtime."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from understudy.core.config import check_choice, from_dict
from understudy.core.errors import ConfigError, DataError
from understudy.core.hashing import hash_file
from understudy.core.lazy import require
from understudy.models.preprocess import Preprocess
from understudy.reinforce.config import TeacherSpec
from understudy.reinforce.teachers.base import Images, Teacher


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """Options of kind `onnx`. Names are those of the graph's inputs and outputs.

    Attributes:
        image_input: input that takes pixels; empty for the graph's first input.
        image_output: output with image features `[B, D]`.
        class_output: output with class scores `[B, C]`.
        softmax: `class_output` holds logits, so softmax follows.
        text_path: file with the text encoder; empty if it is in the same file.
        text_input: input that takes token ids; empty for the graph's first input.
        mask_input: input that takes the attention mask; empty for none.
        text_output: output with text features `[B, D]`, or token features `[B, T, D]`, which are
            averaged over the mask.
        tokenizer: a `tokenizer.json` file.
        context_length: ids a row; longer texts are cut.
        size: side of the input in pixels.
        mean: subtracted from pixels in [0, 1].
        std: divided by afterwards.
        interpolation: `bilinear` or `bicubic`.
        layout: `nchw` or `nhwc`.
        threads: of ONNX Runtime.
    """

    image_input: str = ""
    image_output: str = ""
    class_output: str = ""
    softmax: bool = True
    text_path: str = ""
    text_input: str = ""
    mask_input: str = ""
    text_output: str = ""
    tokenizer: str = ""
    context_length: int = 77
    size: int = 224
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    interpolation: str = "bicubic"
    layout: str = "nchw"
    threads: int = 1


def open_session(path: str | Path, threads: int, where: str) -> Any:
    """Open an ONNX file.

    Raises:
        DataError: missing, or ONNX Runtime refuses it.
        MissingExtraError: ONNX Runtime is missing.
    """
    runtime = require("onnxruntime", "export", where)
    if not Path(path).is_file():
        raise DataError(f"{where}: {path}: no such ONNX file.")
    settings = runtime.SessionOptions()
    settings.intra_op_num_threads = threads
    settings.log_severity_level = 3
    try:
        return runtime.InferenceSession(
            str(path), settings, providers=runtime.get_available_providers()
        )
    except Exception as error:  # ONNX Runtime's exceptions share no base class of their own
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(f"{where}: {path}: ONNX Runtime does not open it ({reason}).") from None


def _check(names: list[str], wanted: str, what: str, where: str) -> str:
    if not wanted and what == "input" and names:
        return names[0]
    check_choice(wanted, names, f"{where}: {what} of the graph")
    return wanted


class OnnxTeacher(Teacher):
    """An ONNX model as a teacher.

    Args:
        name: what its columns are called.
        path: the file.
        options: inputs, outputs and preprocessing.
        logit_scale: factor of its logits in distillation.
    """

    kind: ClassVar[str] = "onnx"

    def __init__(
        self,
        name: str,
        path: str | Path,
        options: Options,
        *,
        logit_scale: float | None = None,
    ) -> None:
        where = f"teacher '{name}'"
        check_choice(options.layout, ("nchw", "nhwc"), f"{where}.options.layout")
        pixels = Preprocess(
            size=options.size,
            mean=options.mean,
            std=options.std,
            interpolation=options.interpolation,
        )
        super().__init__(name, logit_scale=logit_scale, preprocess=pixels)
        self.path = Path(path)
        self.session = open_session(path, options.threads, where)
        inputs = [i.name for i in self.session.get_inputs()]
        outputs = [o.name for o in self.session.get_outputs()]
        able: set[str] = set()
        if options.image_output or options.class_output:
            image_input = _check(inputs, options.image_input, "input", where)
            options = replace(options, image_input=image_input)
        if options.image_output:
            _check(outputs, options.image_output, "output", where)
            able.add("embed_images")
        if options.class_output:
            _check(outputs, options.class_output, "output", where)
            able.add("classify")
        if options.text_output:
            options = self._open_text(options, where)
            able.add("embed_texts")
        if not able:
            raise ConfigError(
                f"{where}: name an output to use: options.image_output, class_output or "
                f"text_output; the graph has {', '.join(outputs)}."
            )
        self.options = options
        self.capabilities = frozenset(able)

    def _open_text(self, options: Options, where: str) -> Options:
        from tokenizers import Tokenizer

        self.text_session = self.session
        if options.text_path:
            self.text_session = open_session(options.text_path, options.threads, where)
        inputs = [i.name for i in self.text_session.get_inputs()]
        outputs = [o.name for o in self.text_session.get_outputs()]
        _check(outputs, options.text_output, "output", where)
        if options.mask_input:
            _check(inputs, options.mask_input, "input", where)
        if not Path(options.tokenizer).is_file():
            raise ConfigError(
                f"{where}.options.tokenizer: give a tokenizer.json file, got '{options.tokenizer}'."
            )
        self.tokenizer = Tokenizer.from_file(options.tokenizer)
        self.tokenizer.enable_truncation(options.context_length)
        self.tokenizer.enable_padding(length=options.context_length)
        return replace(options, text_input=_check(inputs, options.text_input, "input", where))

    @classmethod
    def from_spec(cls, spec: TeacherSpec) -> OnnxTeacher:
        """Open the file `path`."""
        options = from_dict(Options, spec.options, f"teacher '{spec.name}'.options")
        if not spec.path:
            raise ConfigError(f"teacher '{spec.name}': give 'path', an ONNX file.")
        return cls(spec.name, spec.path, options, logit_scale=spec.logit_scale)

    def _identity(self) -> dict[str, Any]:
        from understudy.core.config import to_dict

        files = [self.path, *(Path(p) for p in (self.options.text_path,) if p)]
        tokenizer = hash_file(self.options.tokenizer) if "embed_texts" in self.capabilities else ""
        skipped = ("threads", "text_path", "tokenizer")
        settings = {k: v for k, v in to_dict(self.options).items() if k not in skipped}
        return {
            "files": [hash_file(p) for p in files],
            "tokenizer": tokenizer,
            "settings": settings,
        }

    @property
    def backend(self) -> dict[str, Any]:
        """ONNX Runtime's version and its execution providers."""
        from understudy.core.provenance import versions

        return {
            "onnxruntime": versions("onnxruntime").get("onnxruntime", "unknown"),
            "providers": list(self.session.get_providers()),
        }

    def _run(self, session: Any, outputs: list[str], feed: dict[str, np.ndarray]) -> Any:
        types = {i.name: i.type for i in session.get_inputs()}
        kinds = {
            "tensor(int32)": np.int32,
            "tensor(int64)": np.int64,
            "tensor(float16)": np.float16,
        }
        cast = {k: v.astype(kinds.get(types[k], v.dtype)) for k, v in feed.items()}
        return session.run(outputs, cast)

    def _look(self, images: Images, output: str) -> np.ndarray:
        import torch

        from understudy.reinforce.teachers.prepare import to_input

        assert self.preprocess is not None
        pixels = to_input(images, self.preprocess, torch.device("cpu")).numpy()
        if self.options.layout == "nhwc":
            pixels = np.ascontiguousarray(pixels.transpose(0, 2, 3, 1))
        return self._run(self.session, [output], {self.options.image_input: pixels})[0]

    def _image_features(self, images: Images) -> np.ndarray:
        found = self._look(images, self.options.image_output)
        return found.reshape(len(found), -1)

    def _probabilities(self, images: Images) -> np.ndarray:
        scores = self._look(images, self.options.class_output).astype(np.float64)
        if not self.options.softmax:
            return scores
        scores = np.exp(scores - scores.max(axis=1, keepdims=True))
        return scores / scores.sum(axis=1, keepdims=True)

    def _text_features(self, texts: list[str]) -> np.ndarray:
        encoded = self.tokenizer.encode_batch(texts)
        ids = np.array([e.ids for e in encoded], np.int64).reshape(len(texts), -1)
        mask = np.array([e.attention_mask for e in encoded], np.int64).reshape(len(texts), -1)
        feed = {self.options.text_input: ids}
        if self.options.mask_input:
            feed[self.options.mask_input] = mask
        found = self._run(self.text_session, [self.options.text_output], feed)[0]
        if found.ndim == 2:
            return found
        weights = mask[..., None].astype(found.dtype)
        return (found * weights).sum(axis=1) / np.maximum(weights.sum(axis=1), 1)
