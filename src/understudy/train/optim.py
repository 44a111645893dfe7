"""Optimisers, their parameter groups, and their state as named tensors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from understudy.core.errors import ConfigError, DataError
from understudy.train.config import TrainConfig
from understudy.train.distributed import like

NO_DECAY_NAMES = ("logit_scale", "logit_bias", "positional_embedding", "pos_embed", "position")
"""Last parts of parameter names that are never decayed, whatever their shape."""
LR_SCALE = "lr_scale"
"""Attribute of a parameter: factor of its learning rate; 1 where it is not set."""


def decays(name: str, parameter: nn.Parameter) -> bool:
    """Say whether weight decay applies: to matrices and kernels, not to gains, biases or tables.

    Layer scales are stored as [C, 1, 1] and are gains too: what counts is the number of
    dimensions longer than 1.
    """
    last = name.rsplit(".", 1)[-1]
    matrix = parameter.ndim >= 2 and sum(side > 1 for side in parameter.shape) >= 2
    return matrix and last not in NO_DECAY_NAMES


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters that learn, by name.

    Raises:
        ConfigError: there is none.
    """
    found = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if not found:
        raise ConfigError("fit: every parameter of the model is frozen; nothing can be trained.")
    return found


def make_optimizer(
    parameters: Mapping[str, nn.Parameter], config: TrainConfig
) -> torch.optim.Optimizer:
    """Make AdamW, Adam or SGD, with a group for each weight decay and factor of the learning rate.

    Args:
        parameters: what `trainable` returned; an attribute `lr_scale` of one is such a factor.
        config: of the run.
    """
    members: dict[tuple[float, float], list[nn.Parameter]] = {}
    for decayed in (True, False):
        for name, parameter in parameters.items():
            if decayed == (config.decay_all or decays(name, parameter)):
                key = (config.weight_decay if decayed else 0.0, getattr(parameter, LR_SCALE, 1.0))
                members.setdefault(key, []).append(parameter)
    groups = [
        {"params": params, "weight_decay": decay, LR_SCALE: scale}
        for (decay, scale), params in members.items()
    ]
    # The fused kernels update all tensors in one call, on the processor as well.
    fused = all(type(p) is nn.Parameter and p.is_floating_point() for p in parameters.values())
    if config.optimizer in ("adamw", "adam"):
        kind = torch.optim.AdamW if config.optimizer == "adamw" else torch.optim.Adam
        return kind(groups, lr=config.lr, betas=config.betas, eps=config.eps, fused=fused)
    return torch.optim.SGD(
        groups, lr=config.lr, momentum=config.momentum, nesterov=config.nesterov, fused=fused
    )


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of all groups, times each one's factor."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get(LR_SCALE, 1.0)


def state_tensors(
    optimizer: torch.optim.Optimizer, parameters: Mapping[str, nn.Parameter]
) -> dict[str, Tensor]:
    """Return the optimiser's state as `{"<parameter>/<field>": tensor}`.

    Fields that are None (SGD before its first step) are left out.
    """
    found: dict[str, Tensor] = {}
    for name, parameter in parameters.items():
        for field, value in optimizer.state.get(parameter, {}).items():
            if isinstance(value, Tensor):
                found[f"{name}/{field}"] = value
            elif value is not None:
                found[f"{name}/{field}"] = torch.tensor(value)
    return found


def load_state_tensors(
    optimizer: torch.optim.Optimizer,
    parameters: Mapping[str, nn.Parameter],
    state: Mapping[str, Tensor],
) -> None:
    """Put back what `state_tensors` returned.

    Raises:
        DataError: the state is of other parameters.
    """
    for key, value in state.items():
        name, _, field = key.rpartition("/")
        if name not in parameters:
            raise DataError(
                f"optimizer state: there is no trainable parameter '{name}'; the checkpoint is of "
                "another model."
            )
        parameter = parameters[name]
        # AdamW counts steps in a float32 scalar: beside the weights for fused kernels, else in
        # host memory, where reading it does not wait for the device.
        host = field == "step" and not optimizer.defaults.get("fused")
        optimizer.state[parameter][field] = value.clone() if host else like(value, parameter)


def logit_scales(model: nn.Module) -> list[nn.Parameter]:
    """Return the parameters to keep at or below log(maximum): those named `logit_scale`."""
    return [p for n, p in model.named_parameters() if n.rsplit(".", 1)[-1] == "logit_scale"]


def keep_below(parameters: Iterable[nn.Parameter], limit: float) -> None:
    """Clamp parameters in place.

    Just below its limit the clamp inside a model still lets gradients pass, so that the scale can
    come down again; above, its gradient would be zero for good.
    """
    with torch.no_grad():
        for parameter in parameters:
            parameter.clamp_(max=limit)


def set_training(model: nn.Module) -> None:
    """Set training mode, except for modules that are frozen as a whole."""
    model.train()
    for module in model.modules():
        parameters = list(module.parameters())
        if parameters and not any(p.requires_grad for p in parameters):
            module.eval()


def clip_gradients(parameters: list[nn.Parameter], limit: float) -> Tensor:
    """Clip the gradients' common norm; return it. Sharded and whole tensors may be mixed."""
    grads = [p.grad for p in parameters if p.grad is not None]
    sharded = [g for g in grads if hasattr(g, "full_tensor")]
    if not sharded:
        return torch.nn.utils.clip_grad_norm_(parameters, limit)
    rest = [g for g in grads if not hasattr(g, "full_tensor")]
    parts = [torch.nn.utils.get_total_norm(sharded).full_tensor()]  # type: ignore[attr-defined]
    parts += [torch.nn.utils.get_total_norm(rest)] if rest else []
    norm = torch.stack(parts).norm()
    factor = (limit / (norm + 1e-6)).clamp(max=1.0)
    for grad in grads:
        grad.mul_(factor)
    return norm
