"""What all teachers that run in torch share: freezing, device, precision, fingerprint."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from understudy.core.config import check_choice
from understudy.core.errors import ConfigError
from understudy.core.provenance import versions
from understudy.models.preprocess import Preprocess
from understudy.reinforce.teachers.base import Images, Teacher
from understudy.reinforce.teachers.prepare import to_input

COMPUTE = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def choose_device(name: str) -> torch.device:
    """Return a device by name; `"auto"` is an accelerator if there is one.

    Raises:
        ConfigError: torch does not know the device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.device(name)
    except RuntimeError:
        raise ConfigError(f"device: torch knows no '{name}'; try cpu, cuda or auto.") from None


class TorchTeacher(Teacher):
    """A teacher around an `nn.Module`, frozen: evaluation mode, no gradients.

    Args:
        name: what its columns are called.
        module: the network; it is frozen in place and moved to `device`.
        logit_scale: factor of its logits in distillation.
        preprocess: what images go through.
        device: `"cpu"`, `"cuda"`, ... or `"auto"`.
        compute: `"float32"`, or an autocast precision `"bfloat16"` or `"float16"`.
    """

    def __init__(
        self,
        name: str,
        module: torch.nn.Module,
        *,
        logit_scale: float | None = None,
        preprocess: Preprocess | None = None,
        device: str = "auto",
        compute: str = "float32",
    ) -> None:
        super().__init__(name, logit_scale=logit_scale, preprocess=preprocess)
        check_choice(compute, COMPUTE, f"teacher '{name}'.options.compute")
        self.device = choose_device(device)
        self.compute = compute
        self.module = module.eval().requires_grad_(False).to(self.device)

    def _settings(self) -> dict[str, Any]:
        """Return what decides outputs beside weights and preprocessing."""
        return {}

    def _identity(self) -> dict[str, Any]:
        from understudy.models.io import weights_hash

        return {
            "weights": weights_hash(self.module),
            "compute": self.compute,
            "settings": self._settings(),
        }

    @property
    def backend(self) -> dict[str, Any]:
        """Torch's version, the device and the precision."""
        found = versions()
        return {
            "torch": found.get("torch", "unknown"),
            "device": self.device.type,
            "compute": self.compute,
        }

    def _input(self, images: Images) -> torch.Tensor:
        assert self.preprocess is not None
        return to_input(images, self.preprocess, self.device)

    @contextmanager
    def _asking(self) -> Iterator[None]:
        """Run the network without gradients, after making sure that it is still frozen."""
        if any(part.training for part in self.module.modules()):
            raise ConfigError(
                f"teacher '{self.name}' is in training mode: something called train() on its "
                "model; teachers are frozen, call eval()."
            )
        dtype = COMPUTE[self.compute]
        enabled = dtype != torch.float32
        with (
            torch.inference_mode(),
            torch.autocast(self.device.type, dtype=dtype, enabled=enabled),
        ):
            yield


def numpy(tensor: torch.Tensor) -> Any:
    """Return a tensor as a float32 array on the host."""
    return tensor.float().cpu().numpy()
