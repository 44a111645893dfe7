"""Draw view records: every item from its own seed, a whole batch in a few array operations.

Distributions: random resized crop, RandAugment and random erasing as in torchvision; MixUp and
CutMix as in arXiv 2303.08983 (MixUp's weight of the first image is Beta(alpha, alpha) / div_by, so
with div_by = 2 the mix leans to the *partner*; kept, since released data were made so).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from understudy.core.errors import ConfigError, DataError
from understudy.core.seeds import rng
from understudy.data.view_config import ViewConfig
from understudy.data.view_geometry import chain_sizes, image_name
from understudy.data.view_params import CUT, MAX_SIDE, MIXED_UP, NO_OP, empty_params
from understudy.data.view_randaugment import NUM_OPS, magnitudes
from understudy.data.view_random import below, uniforms

# Streams of random numbers; the partner's are these + PARTNER. Never renumber.
CROP, RESIZED_CROP, FLIP, RA_SKIP, RA_OPS, ERASE = 1, 2, 3, 4, 5, 6
MIXUP_HIT, MIXUP_LAM, CUTMIX_HIT, CUTMIX_LAM, CUTMIX_BOX, CHOOSE = 16, 17, 18, 19, 20, 21
PARTNER = 32
TRIES = 10


def check_sizes(sizes: Any, count: int, names: Sequence[str] | None = None) -> np.ndarray:
    """Return `int64 [B, 2]` (height, width); raise `DataError` for sizes that do not store."""
    sizes = np.asarray(sizes, np.int64)
    if sizes.shape != (count, 2):
        raise DataError(f"sizes: expected [{count}, 2] (height, width), got {list(sizes.shape)}.")
    if count and (sizes.min() < 1 or sizes.max() > MAX_SIDE):
        i = int(np.argmax((sizes < 1).any(1) | (sizes > MAX_SIDE).any(1)))
        raise DataError(
            f"{image_name(names, i)} is {sizes[i, 0]}x{sizes[i, 1]} pixels: sides must be 1 to "
            f"{MAX_SIDE}."
        )
    return sizes


def _first_valid(valid: np.ndarray, *candidates: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
    """Return (any valid [B], the first valid try of each candidate [B, TRIES])."""
    first = valid.argmax(1)
    rows = np.arange(len(valid))
    return valid.any(1), [c[rows, first] for c in candidates]


def sample_resized_crop(sizes: np.ndarray, options: dict, u: np.ndarray) -> np.ndarray:
    """Draw `int64 [B, 4]` (top, left, height, width); `u` is `[B, 4 * TRIES]` uniforms."""
    u = u.reshape(len(u), TRIES, 4)
    height, width = sizes[:, :1].astype(np.float64), sizes[:, 1:].astype(np.float64)
    (low, high), (r0, r1) = options["scale"], options["ratio"]
    area = height * width * (low + (high - low) * u[..., 0])
    aspect = np.exp(np.log(r0) + (np.log(r1) - np.log(r0)) * u[..., 1])
    w, h = np.rint(np.sqrt(area * aspect)), np.rint(np.sqrt(area / aspect))
    valid = (w > 0) & (w <= width) & (h > 0) & (h <= height)
    top = below(u[..., 2], np.maximum(height - h, 0) + 1)
    left = below(u[..., 3], np.maximum(width - w, 0) + 1)
    found, (top, left, h, w) = _first_valid(valid, top, left, h, w)

    # Central fallback: the whole image, or the largest part of it with an allowed ratio.
    H, W = height[:, 0], width[:, 0]
    wide, tall = W / H > r1, W / H < r0
    fh = np.where(tall, np.rint(W / r0), H)
    fw = np.where(wide, np.rint(H * r1), W)
    fallback = np.stack([(H - fh) // 2, (W - fw) // 2, fh, fw], 1)
    drawn = np.stack([top, left, h, w], 1)
    return np.where(found[:, None], drawn, fallback).astype(np.int64)


def sample_erase(size: int, options: dict, u: np.ndarray, hit: np.ndarray) -> np.ndarray:
    """Draw `int64 [B, 4]` (top, left, height, width) in a square view; zeros for none."""
    u = u.reshape(len(u), TRIES, 4)
    (low, high), (r0, r1) = options["scale"], options["ratio"]
    area = size * size * (low + (high - low) * u[..., 0])
    aspect = np.exp(np.log(r0) + (np.log(r1) - np.log(r0)) * u[..., 1])
    h, w = np.rint(np.sqrt(area * aspect)), np.rint(np.sqrt(area / aspect))
    valid = (h < size) & (w < size) & (h > 0) & (w > 0)
    top = below(u[..., 2], np.maximum(size - h, 0) + 1)
    left = below(u[..., 3], np.maximum(size - w, 0) + 1)
    found, drawn = _first_valid(valid, top, left, h, w)
    return np.where((found & hit)[:, None], np.stack(drawn, 1), 0).astype(np.int64)


def sample_beta(seeds: np.ndarray, stream: int, alpha: float) -> np.ndarray:
    """Draw Beta(alpha, alpha); alpha = 1 is one uniform, others take a generator an item."""
    if alpha == 1.0:
        return uniforms(seeds, stream, 1)[:, 0]
    return np.array([rng("beta", stream, int(s)).beta(alpha, alpha) for s in seeds])


def _sample_image(
    config: ViewConfig,
    params: np.ndarray,
    sizes: np.ndarray,
    seeds: np.ndarray,
    partner: bool,
    names: Sequence[str] | None,
) -> None:
    """Fill the fields of one image (the first, or the partner) of every record."""
    base, suffix = (PARTNER, "2") if partner else (0, "")
    transforms = config.transforms
    before_crop, before_resized = chain_sizes(config, sizes, names)
    if "random_crop" in transforms:
        free = before_crop - config.size + 1
        params[f"rc{suffix}"] = below(uniforms(seeds, base + CROP, 2), np.maximum(free, 1))
    if "random_resized_crop" in transforms:
        u = uniforms(seeds, base + RESIZED_CROP, 4 * TRIES)
        options = transforms["random_resized_crop"]
        params[f"rrc{suffix}"] = sample_resized_crop(before_resized, options, u)
    if "random_horizontal_flip" in transforms:
        hit = uniforms(seeds, base + FLIP, 1)[:, 0] < transforms["random_horizontal_flip"]["p"]
        params[f"flip{suffix}"] = hit
    if "rand_augment" in transforms:
        options = transforms["rand_augment"]
        u = uniforms(seeds, base + RA_OPS, 2 * options["num_ops"]).reshape(len(seeds), -1, 2)
        ops = below(u[..., 0], NUM_OPS)
        table, signed = magnitudes(options, config.size)
        sign = np.where(signed[ops] & (u[..., 1] < 0.5), -1.0, 1.0)
        hit = (uniforms(seeds, base + RA_SKIP, 1) < options["p"]) | (options["p"] == 1.0)
        params[f"ra_op{suffix}"] = np.where(hit, ops, NO_OP)
        # + 0.0 turns the -0.0 of a signed zero into 0.0, so that equal records have equal bytes.
        params[f"ra_mag{suffix}"] = np.where(hit, table[ops] * sign, 0.0) + 0.0
    if "random_erase" in transforms:
        options = transforms["random_erase"]
        u = uniforms(seeds, base + ERASE, 1 + 4 * TRIES)
        erased = sample_erase(config.size, options, u[:, 1:], u[:, 0] < options["p"])
        params[f"re{suffix}"] = erased


def _sample_mix(config: ViewConfig, params: np.ndarray, seeds: np.ndarray) -> None:
    """Fill `mix`, the weights and the box; MixUp and CutMix are drawn independently."""
    if "mixup" in config.transforms:
        options = config.transforms["mixup"]
        hit = uniforms(seeds, MIXUP_HIT, 1)[:, 0] < options["p"]
        lam = sample_beta(seeds, MIXUP_LAM, options["alpha"]) / options["div_by"]
        params["mix"] |= np.where(hit, MIXED_UP, 0).astype(np.uint8)
        params["mixup_lam"] = np.where(hit, lam, 0)
    if "cutmix" in config.transforms:
        options = config.transforms["cutmix"]
        hit = uniforms(seeds, CUTMIX_HIT, 1)[:, 0] < options["p"]
        lam = sample_beta(seeds, CUTMIX_LAM, options["alpha"])
        lam = np.minimum(lam, 1.0).astype(np.float16).astype(np.float64)
        half = np.floor(config.size * np.sqrt(1.0 - lam)).astype(np.int64) // 2
        centre = below(uniforms(seeds, CUTMIX_BOX, 2), config.size)
        box = np.concatenate([centre - half[:, None], centre + half[:, None]], 1)
        params["mix"] |= np.where(hit, CUT, 0).astype(np.uint8)
        params["cutmix_lam"] = np.where(hit, lam, 0)
        params["box"] = np.where(hit[:, None], np.clip(box, 0, config.size), 0)


def sample_params(
    config: ViewConfig,
    sizes: Any,
    seeds: np.ndarray,
    partners: tuple[Any, Any] | None = None,
    names: Sequence[str] | None = None,
) -> np.ndarray:
    """Draw the records of a batch.

    Args:
        config: the view set.
        sizes: `int [B, 2]`, (height, width) of each image in pixels.
        seeds: `uint64 [B]`.
        partners: (row numbers `int [B]`, sizes `int [B, 2]`) of the images to mix in; required when
            the configuration mixes. Which records are mixed is drawn here.
        names: what to call each image in errors.

    Raises:
        ConfigError: mixing without partners.
        DataError: an image whose size cannot be stored or cropped.
    """
    params = empty_params(config, len(seeds))
    checked = check_sizes(sizes, len(seeds), names)
    _sample_image(config, params, checked, seeds, False, names)
    if not config.mixes:
        return params
    if partners is None:
        raise ConfigError(
            "views with mixup or cutmix need partners=(row numbers, sizes): draw them with "
            "draw_partners()."
        )
    rows, partner_sizes = partners
    _sample_mix(config, params, seeds)
    mixed = params["mix"] > 0
    if mixed.any():
        part = params[mixed]
        labels = [f"the partner row {int(r)}" for r in np.asarray(rows)]
        sizes2 = check_sizes(partner_sizes, len(seeds), labels)[mixed]
        chosen = [labels[i] for i in np.flatnonzero(mixed)]
        _sample_image(config, part, sizes2, seeds[mixed], True, chosen)
        part["id2"] = np.asarray(rows, np.int64)[mixed]
        params[mixed] = part
    return params


def draw_partners(seeds: np.ndarray, num_rows: int, own: np.ndarray | None = None) -> np.ndarray:
    """Draw a partner row for every item: `int64 [B]`, uniform over the other rows.

    Args:
        seeds: `uint64 [B]`.
        num_rows: rows in the dataset.
        own: `int [B]` row of each item, which is excluded when there is another.
    """
    u = uniforms(seeds, CHOOSE, 1)[:, 0]
    if own is None or num_rows < 2:
        return below(u, num_rows)
    drawn = below(u, num_rows - 1)
    return drawn + (drawn >= np.asarray(own))
