"""Zero-shot classification: class names and prompt templates become the weights of a classifier.

A class's weight is the mean of its prompts' unit embeddings, made unit again (arXiv 2103.00020,
sec. 3.1.4; arXiv 2311.17049, sec. 5); the class with the largest cosine wins.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from understudy.core.errors import DataError
from understudy.evaluate.classify import classification_metrics
from understudy.evaluate.metrics import Array

TEMPLATES = (
    "a photo of a {}.",
    "a picture of a {}.",
    "a cropped photo of a {}.",
    "a bright photo of a {}.",
    "a dark photo of a {}.",
    "a blurry photo of a {}.",
    "a drawing of a {}.",
    "{}.",
)
"""Prompts that fit most picture sets; give your own file where the pictures are of one kind."""

PLACEHOLDERS = ("{}", "{class}")
TextEncoder = Callable[[Sequence[str]], Tensor]
Prompts = Sequence[str] | Mapping[str, Sequence[str]]
"""Templates for all classes, or the full prompts of each class by its name."""


def read_templates(path: str | Path) -> tuple[str, ...]:
    """Read prompt templates, one a line; `{}` or `{class}` stands for the class name.

    Empty lines and lines that begin with `#` are left out.

    Raises:
        DataError: the file is missing or empty, or a line has not exactly one placeholder.
    """
    found = []
    for number, line in enumerate(_lines(path), start=1):
        if line and not line.startswith("#"):
            found.append(check_template(line, f"{path}, line {number}"))
    if not found:
        raise DataError(f"{path}: no template; give at least one line such as 'a photo of a {{}}.'")
    return tuple(found)


def check_template(template: str, where: str = "template") -> str:
    """Return `template` if it has exactly one placeholder, `{}` or `{class}`."""
    count = sum(template.count(mark) for mark in PLACEHOLDERS)
    if count != 1:
        raise DataError(
            f"{where}: {template!r} has {count} placeholders; expected one {{}} for the class name."
        )
    return template


def read_classes(path: str | Path) -> tuple[str, ...]:
    """Read class names in the order of their numbers: one a line, or a JSON list.

    Raises:
        DataError: missing file, no class, an empty name or one that is there twice.
    """
    if Path(path).suffix == ".json":
        from understudy.core.files import read_json

        data = read_json(path)
        if not isinstance(data, list) or not all(isinstance(name, str) for name in data):
            raise DataError(f"{path}: expected a JSON list of class names.")
        return check_classes(data, str(path))
    lines = _lines(path)
    while lines and not lines[-1]:
        lines.pop()
    return check_classes(lines, str(path))


def _lines(path: str | Path) -> list[str]:
    try:
        return [line.strip() for line in Path(path).read_text(encoding="utf-8").splitlines()]
    except FileNotFoundError:
        raise DataError(f"{path}: no such file.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not a text file ({error}).") from None


def check_classes(names: Sequence[str], where: str = "classes") -> tuple[str, ...]:
    """Return class names as a tuple after checking that they can be told apart.

    Raises:
        DataError: none, an empty one, or one that is there twice (its places are named).
    """
    seen: dict[str, int] = {}
    for i, name in enumerate(names):
        if not name.strip():
            raise DataError(f"{where}: class {i} has an empty name.")
        if name in seen:
            raise DataError(
                f"{where}: '{name}' is class {seen[name]} and class {i}; two classes of one name "
                "cannot be told apart, so give them different names or merge them."
            )
        seen[name] = i
    if not seen:
        raise DataError(f"{where}: no class; zero-shot classification needs class names.")
    return tuple(names)


def class_prompts(classes: Sequence[str], prompts: Prompts = TEMPLATES) -> list[list[str]]:
    """Return the prompts of each class, in the order of the classes.

    Raises:
        DataError: bad classes or templates, or no prompt for a class.
    """
    names = check_classes(classes)
    if isinstance(prompts, Mapping):
        for name in names:
            if not prompts.get(name):
                raise DataError(f"prompts: none for class '{name}'.")
        return [list(prompts[name]) for name in names]
    if isinstance(prompts, str):
        prompts = (prompts,)
    if not prompts:
        raise DataError("prompts: give at least one template such as 'a photo of a {}.'")
    for template in prompts:
        check_template(template)
    return [[_fill(t, name) for t in prompts] for name in names]


def _fill(template: str, name: str) -> str:
    # str.format would stumble over braces in a class name's neighbourhood
    for mark in PLACEHOLDERS:
        if mark in template:
            before, _, after = template.partition(mark)
            return f"{before}{name}{after}"
    raise DataError(f"template {template!r} has no placeholder.")


def unit(vectors: Array, what: str = "embeddings") -> Float[Tensor, "*rows dim"]:
    """Return float32 vectors of length 1.

    Raises:
        DataError: a vector is zero or not finite; the message names it.
    """
    values = torch.as_tensor(vectors).float()
    norms = values.norm(dim=-1, keepdim=True)
    bad = ~(torch.isfinite(norms) & (norms > 0)).reshape(-1)
    if bool(bad.any()):
        raise DataError(
            f"{what}: vector {int(bad.int().argmax())} is zero or not finite and has no direction."
        )
    return values / norms


def average_prompts(
    embeddings: Float[Tensor, "prompts dim"], counts: Sequence[int]
) -> Float[Tensor, "classes dim"]:
    """Return class weights: normalise, mean over each class's prompts, normalise again.

    Args:
        embeddings: of all prompts, class after class.
        counts: prompts of each class.
    """
    parts = unit(embeddings, "prompt embeddings").split(list(counts))
    return unit(torch.stack([part.mean(0) for part in parts]), "class weights")


def class_weights(
    encode: TextEncoder, classes: Sequence[str], prompts: Prompts = TEMPLATES
) -> Float[Tensor, "classes dim"]:
    """Build the zero-shot classifier of a text encoder.

    Args:
        encode: texts to embeddings [n, dim]; their length does not matter.
        classes: class names, all different.
        prompts: templates, or each class's full prompts.

    Returns:
        unit vectors, one a class.

    Raises:
        DataError: see `check_classes` and `class_prompts`; or the mean of a class's prompts is 0.
    """
    groups = class_prompts(classes, prompts)
    embeddings = encode([text for group in groups for text in group])
    return average_prompts(embeddings, [len(group) for group in groups])


def join_embeddings(embeddings: Sequence[Array]) -> Float[Tensor, "rows dims"]:
    """Join the embeddings of several CLIPs into those of their ensemble at test.

    Each model's vectors are made unit, concatenated and made unit again (arXiv 2311.17049,
    sec. 5): cosines become the mean of the models' cosines. Join images and class weights alike.

    Args:
        embeddings: [rows, dim_k] of each model, equal rows.
    """
    if not embeddings:
        raise DataError("join_embeddings: expected at least one model's embeddings.")
    parts = [unit(part, f"model {k}'s embeddings") for k, part in enumerate(embeddings)]
    rows = {len(part) for part in parts}
    if len(rows) > 1:
        raise DataError(f"join_embeddings: the models have {sorted(rows)} rows; expected equal.")
    return unit(torch.cat(parts, dim=-1))


def zeroshot_logits(images: Array, weights: Array, scale: float = 100.0) -> Float[Tensor, "n c"]:
    """Return scale * cosine of every image with every class.

    Args:
        images: embeddings [n, dim].
        weights: class weights [classes, dim].
        scale: inverse temperature; matters for calibration, not for accuracy.
    """
    left, right = unit(images, "image embeddings"), unit(weights, "class weights")
    if left.shape[1] != right.shape[1]:
        raise DataError(
            f"image embeddings have {left.shape[1]} dimensions, class weights {right.shape[1]}; "
            "they are of different models."
        )
    return scale * left @ right.to(left.device).T


def zeroshot_metrics(
    images: Array, labels: Array, weights: Array, *, scale: float = 100.0, bins: int = 15
) -> dict[str, float]:
    """Score zero-shot classification; see `classification_metrics` for what comes back.

    Args:
        images: embeddings [n, dim].
        labels: class numbers [n].
        weights: class weights [classes, dim], from `class_weights`.
        scale: inverse temperature of the probabilities (the model's logit scale).
        bins: of the calibration error.
    """
    return classification_metrics(zeroshot_logits(images, weights, scale), labels, bins=bins)
