"""Transformers models as teachers: dual encoders, captioners and image classifiers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch

from understudy.core.config import from_dict, to_dict
from understudy.core.errors import ConfigError
from understudy.models.language.options import check_generation
from understudy.models.language.stops import first_sentence
from understudy.models.preprocess import Preprocess
from understudy.reinforce.config import TeacherSpec
from understudy.reinforce.teachers import hub_files
from understudy.reinforce.teachers.base import Images
from understudy.reinforce.teachers.captioning import (
    CaptionOptions,
    DrawnTokens,
    caption_draws,
    check_captions,
    check_task,
    sampling_settings,
)
from understudy.reinforce.teachers.torch_teacher import TorchTeacher, numpy


@dataclass(frozen=True, kw_only=True, slots=True)
class Options(CaptionOptions):
    """Options of kind `transformers`; `CaptionOptions` has those of captioners.

    Transformers runs the loop: `fixed_length` has no effect, and captions are the same anyway.

    Attributes:
        task: `clip`, `caption`, `classify`, or `auto` to go by the checkpoint's architecture.
        size: side of the input in pixels; 0 for the checkpoint's.
        mean: of pixels in [0, 1]; empty for the checkpoint's.
        std: see `mean`.
        interpolation: `bilinear` or `bicubic`; empty for the checkpoint's.
        max_length: tokens of a text at most; 0 for what the text tower takes.
        max_tokens: tokens of a caption at most.
        prompt: text that captions begin with, for models that want one.
        device: `cpu`, `cuda`, ... or `auto`.
        compute: `float32`, `bfloat16` or `float16`.
    """

    task: str = "auto"
    size: int = 0
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    interpolation: str = ""
    max_length: int = 0
    max_tokens: int = 40
    prompt: str = ""
    device: str = "auto"
    compute: str = "float32"


def _features(found: Any) -> torch.Tensor:
    """Return pooled features from a tensor or a Transformers output."""
    if isinstance(found, torch.Tensor):
        return found
    return found.pooler_output


class TransformersTeacher(TorchTeacher):
    """A Transformers model as a teacher.

    Args:
        name: what its columns are called.
        module: the model.
        preprocess: what images go through.
        tokenizer: for texts or captions; None for a classifier.
        task: `clip`, `caption` or `classify`.
        options: lengths and sampling.
        logit_scale: None takes a dual encoder's own.
    """

    kind: ClassVar[str] = "transformers"

    def __init__(
        self,
        name: str,
        module: torch.nn.Module,
        preprocess: Preprocess,
        *,
        tokenizer: Any = None,
        task: str = "auto",
        options: Options | None = None,
        logit_scale: float | None = None,
    ) -> None:
        self.options = options or Options()
        check_task(task, f"teacher '{name}'.task")
        self.task = find_task(module) if task == "auto" else task
        check_generation(self.options, f"teacher '{name}'.options")
        if self.task == "clip" and logit_scale is None and hasattr(module, "logit_scale"):
            logit_scale = float(module.logit_scale.detach().exp())  # type: ignore[operator]
        super().__init__(
            name,
            module,
            logit_scale=logit_scale,
            preprocess=preprocess,
            device=self.options.device,
            compute=self.options.compute,
        )
        self.tokenizer = tokenizer
        bias = getattr(module, "logit_bias", None)  # SigLIP
        self.logit_bias = None if bias is None else float(bias.detach())
        able = {
            "clip": {"embed_images", "embed_texts"},
            "caption": {"caption"},
            "classify": {"classify"},
        }[self.task]
        self.capabilities = frozenset(able)
        if tokenizer is None and self.task != "classify":
            raise ConfigError(f"teacher '{name}': a {self.task} model needs a tokenizer.")

    @classmethod
    def from_spec(cls, spec: TeacherSpec) -> TransformersTeacher:
        """Load the folder `path`, or the hub checkpoint `model`."""
        where = f"teacher '{spec.name}'"
        options = from_dict(Options, spec.options, f"{where}.options")
        library = hub_files.transformers(where)
        source = hub_files.source_of(spec.path, spec.model, where)
        config = hub_files.load(library.AutoConfig.from_pretrained, source, where)
        architectures = tuple(config.architectures or ())
        task = options.task if options.task != "auto" else _task_of(architectures, config)
        check_task(task, f"{where}.options.task")
        loader = {
            "clip": library.AutoModel,
            "caption": library.AutoModelForImageTextToText,
            "classify": library.AutoModelForImageClassification,
        }[task]
        module = hub_files.load(
            loader.from_pretrained, source, where, dtype=torch.float32, attn_implementation="sdpa"
        )
        tokenizer = None
        if task != "classify":
            tokenizer = hub_files.load(library.AutoTokenizer.from_pretrained, source, where)
        pixels = hub_files.read_preprocess(source, where, to_dict(options))
        return cls(
            spec.name,
            module,
            pixels,
            tokenizer=tokenizer,
            task=task,
            options=options,
            logit_scale=spec.logit_scale,
        )

    def _settings(self) -> dict[str, Any]:
        options, found = self.options, {}
        if self.task == "clip":
            found = {"max_length": options.max_length}
        if self.task == "caption":
            found = {**sampling_settings(options), "prompt": options.prompt}
        tokenizer = "" if self.tokenizer is None else hub_files.tokenizer_hash(self.tokenizer)
        return {"task": self.task, "tokenizer": tokenizer, **found}

    @property
    def backend(self) -> dict[str, Any]:
        """Torch's and Transformers' versions, the device and the precision."""
        from understudy.core.provenance import versions

        found = versions("transformers").get("transformers", "unknown")
        return {**super().backend, "transformers": found}

    def _image_features(self, images: Images) -> Any:
        with self._asking():
            pixels = self._input(images)
            return numpy(_features(self.module.get_image_features(pixel_values=pixels)))  # type: ignore[operator]

    def _text_features(self, texts: list[str]) -> Any:
        text = getattr(self.module.config, "text_config", self.module.config)
        length = self.options.max_length or getattr(text, "max_position_embeddings", 77)
        tokens = self.tokenizer(
            texts,
            padding="max_length",
            truncation=True,
            max_length=length,
            return_tensors="pt",
        ).to(self.device)
        tokens.pop("token_type_ids", None)
        if str(self.module.config.model_type).startswith("siglip"):  # type: ignore[union-attr]
            tokens.pop("attention_mask", None)  # trained attending to padding
        with self._asking():
            return numpy(_features(self.module.get_text_features(**tokens)))  # type: ignore[operator]

    def _probabilities(self, images: Images) -> Any:
        with self._asking():
            logits = self.module(pixel_values=self._input(images)).logits
            return numpy(logits.float().softmax(dim=-1))

    def _captions(self, images: Images, num: int, seeds: list[int]) -> list[list[str]]:
        options = self.options
        check_captions(options, num, f"teacher '{self.name}'.options")
        # a beam's captions come of one row, drawn ones of a row each
        times = num if options.method == "sample" else 1
        with self._asking():
            pixels = self._input(images)
            given: dict[str, Any] = {}
            if getattr(self.module.config, "is_encoder_decoder", False):
                # the image is encoded once, whatever the number of captions
                encoded = self.module.get_encoder()(pixel_values=pixels)  # type: ignore[operator]
                hidden = encoded.last_hidden_state.repeat_interleave(times, dim=0)
                given["encoder_outputs"] = type(encoded)(last_hidden_state=hidden)
            else:
                given["pixel_values"] = pixels.repeat_interleave(times, dim=0)
            prompt_length = self._add_prompt(given, len(images) * times)
            if options.method == "sample":
                draws = caption_draws(seeds, num, options.max_tokens)
                given["logits_processor"] = [DrawnTokens(draws, prompt_length, options)]
            if options.method == "beam":
                given |= {"num_beams": options.beams, "num_return_sequences": num}
            ids = self.module.generate(  # type: ignore[operator]
                **given, do_sample=False, max_new_tokens=options.max_tokens
            )
        texts = [self._text(row) for row in ids.cpu().numpy()]
        return [texts[i : i + num] for i in range(0, len(texts), num)]

    def _add_prompt(self, given: dict[str, Any], rows: int) -> int:
        """Put the prompt into `given`; return how many tokens come before the first drawn one."""
        if not self.options.prompt:
            return 1
        key = "decoder_input_ids" if "encoder_outputs" in given else "input_ids"
        ids = self.tokenizer(self.options.prompt, return_tensors="pt", add_special_tokens=False)
        start = getattr(self.module.generation_config, "decoder_start_token_id", None)  # type: ignore[union-attr]
        tokens = ids["input_ids"]
        if start is not None:
            tokens = torch.cat([torch.full((1, 1), start), tokens], dim=1)
        given[key] = tokens.expand(rows, -1).to(self.device)
        return tokens.shape[1]

    def _text(self, ids: np.ndarray) -> str:
        """Return a caption from token ids: up to the end token and the first full stop."""
        end = getattr(self.module.generation_config, "eos_token_id", None)  # type: ignore[union-attr]
        ends: set[Any] = set(end if isinstance(end, list | tuple) else [end])
        row: list[int] = []
        for i, token in enumerate(ids.tolist()):
            # the first token may be the end token: many models also start with it
            if token in ends and i > 0:
                break
            row.append(int(token))
        return first_sentence(self.tokenizer.decode(row, skip_special_tokens=True))


def find_task(module: Any) -> str:
    """Return what a Transformers model can be asked for.

    Raises:
        ConfigError: none of the tasks that teachers have.
    """
    return _task_of((type(module).__name__,), getattr(module, "config", None))


def _task_of(architectures: tuple[str, ...], config: Any) -> str:
    names = " ".join(architectures)
    if "ImageClassification" in names:
        return "classify"
    model_type = str(getattr(config, "model_type", ""))
    captions = ("ConditionalGeneration", "VisionEncoderDecoder", "CausalLM", "ImageTextToText")
    if any(word in names for word in captions):
        return "caption"
    if hasattr(config, "vision_config") and hasattr(config, "text_config"):
        return "clip"
    raise ConfigError(
        f"a Transformers model of type '{model_type}' ({names or 'no architecture'}) is neither a "
        "dual encoder, a captioner nor an image classifier; set options.task if it is."
    )
