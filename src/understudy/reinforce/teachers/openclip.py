"""OpenCLIP models as teachers; its CoCa models also write captions."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch

from understudy.core.config import from_dict
from understudy.core.errors import ConfigError
from understudy.core.lazy import require
from understudy.models.language.options import check_generation
from understudy.models.preprocess import Preprocess
from understudy.reinforce.config import TeacherSpec
from understudy.reinforce.teachers.base import Images
from understudy.reinforce.teachers.captioning import (
    CaptionOptions,
    sampling_settings,
    write_captions,
)
from understudy.reinforce.teachers.torch_teacher import TorchTeacher, numpy


@dataclass(frozen=True, kw_only=True, slots=True)
class Options(CaptionOptions):
    """Options of kind `openclip`; `CaptionOptions` has those of captioners (CoCa models).

    Attributes:
        pretrained: OpenCLIP's checkpoint tag such as `datacomp_xl_s13b_b90k`; `path` wins.
        device: `cpu`, `cuda`, ... or `auto`.
        compute: `float32`, `bfloat16` or `float16`.
    """

    pretrained: str = ""
    device: str = "auto"
    compute: str = "float32"


def preprocess_of(module: Any) -> Preprocess:
    """Return what an OpenCLIP model's images go through."""
    data = module.visual.preprocess_cfg
    size = data["size"]
    given = data.get("interpolation", "bicubic")
    return Preprocess(
        size=int(size if isinstance(size, int) else size[0]),
        mean=tuple(data["mean"]),
        std=tuple(data["std"]),
        interpolation=given if given in ("bilinear", "bicubic") else "bicubic",
        resize="squash" if data.get("resize_mode") == "squash" else "shorter-side",
    )


class OpenClipTeacher(TorchTeacher):
    """An OpenCLIP model as a teacher.

    Args:
        name: what its columns are called.
        module: the model.
        tokenizer: OpenCLIP's tokenizer for it.
        preprocess: what images go through.
        options: sampling, device and precision.
        logit_scale: None takes the model's own.
    """

    kind: ClassVar[str] = "openclip"

    def __init__(
        self,
        name: str,
        module: torch.nn.Module,
        tokenizer: Any,
        preprocess: Preprocess,
        *,
        options: Options | None = None,
        logit_scale: float | None = None,
    ) -> None:
        self.options = options or Options()
        check_generation(self.options, f"teacher '{name}'.options")
        own = float(module.logit_scale.detach().exp())  # type: ignore[operator]
        super().__init__(
            name,
            module,
            logit_scale=own if logit_scale is None else logit_scale,
            preprocess=preprocess,
            device=self.options.device,
            compute=self.options.compute,
        )
        self.tokenizer = tokenizer
        self.writes = hasattr(module, "text_decoder")
        able = {"embed_images", "embed_texts"} | ({"caption"} if self.writes else set())
        self.capabilities = frozenset(able)

    @classmethod
    def from_spec(cls, spec: TeacherSpec) -> OpenClipTeacher:
        """Make `model` with the checkpoint in `path` or the tag in `options.pretrained`."""
        where = f"teacher '{spec.name}'"
        options = from_dict(Options, spec.options, f"{where}.options")
        local = spec.path and Path(spec.path).is_dir()
        model = f"local-dir:{spec.path}" if local else spec.model
        weights = "" if local else spec.path or options.pretrained
        if not model or not (weights or ":" in model):
            raise ConfigError(
                f"{where}: give 'model', such as 'ViT-L-14', and either 'path', a checkpoint, or "
                "options.pretrained, a tag; untrained weights are no teacher."
            )
        library = require("open_clip", "vision", where)
        try:
            module = library.create_model(model, pretrained=weights or None, weights_only=True)
            tokenizer = library.get_tokenizer(model)
        except (RuntimeError, OSError, ValueError) as error:
            reason = " ".join(str(error).split())[:300]
            raise ConfigError(f"{where}: OpenCLIP does not make '{model}' ({reason}).") from None
        return cls(
            spec.name,
            module,
            tokenizer,
            preprocess_of(module),
            options=options,
            logit_scale=spec.logit_scale,
        )

    def _settings(self) -> dict[str, Any]:
        return sampling_settings(self.options) if self.writes else {}

    @property
    def backend(self) -> dict[str, Any]:
        """Torch's and OpenCLIP's versions, the device and the precision."""
        from understudy.core.provenance import versions

        found = versions("open_clip_torch").get("open_clip_torch", "unknown")
        return {**super().backend, "open_clip": found}

    def _image_features(self, images: Images) -> Any:
        with self._asking():
            return numpy(self.module.encode_image(self._input(images)))  # type: ignore[operator]

    def _text_features(self, texts: list[str]) -> Any:
        tokens = self.tokenizer(texts).to(self.device)
        with self._asking():
            return numpy(self.module.encode_text(tokens))  # type: ignore[operator]

    def _captions(self, images: Images, num: int, seeds: list[int]) -> list[list[str]]:
        """Write with the CoCa decoder; it keeps no keys and values, so texts are read again."""
        module, tokenizer = self.module, self.tokenizer
        start, end = tokenizer.sot_token_id, tokenizer.eot_token_id

        def step(new: torch.Tensor, cache: Any) -> tuple[torch.Tensor, Any]:
            latent, tokens, before = cache
            ids = torch.cat([before, new], dim=1)
            out = module(None, ids, image_latent=latent, image_embs=tokens, output_labels=False)
            return out["logits"][:, -1], (latent, tokens, ids)

        def begin(times: int) -> tuple[torch.Tensor, Any]:
            latent, tokens = module._encode_image(self._input(images))  # type: ignore[operator]
            latent, tokens = (x.repeat_interleave(times, dim=0) for x in (latent, tokens))
            ids = torch.full((len(latent), 1), start, dtype=torch.long, device=self.device)
            return step(ids, (latent, tokens, ids[:, :0]))

        with self._asking():
            return write_captions(
                step,
                begin,
                self.options,
                seeds,
                num,
                end_ids=(end,),
                decode=tokenizer.decode,
                where=f"teacher '{self.name}'.options",
            )
