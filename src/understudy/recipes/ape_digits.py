"""Data and encoders of the claim of APE: digits, captions in many wordings, two pairs of encoders.

Everything goes through the stages a user has: a store with pairs, frozen encoders whose features
are cached as columns. Encoders see only scans that no pair and no test uses.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from safetensors.torch import save_file

from understudy.data.store import Store
from understudy.evaluate.claims import Context
from understudy.models.image.classifier import Classifier, ClassifierConfig
from understudy.models.image.conv import ConvConfig
from understudy.models.preprocess import Preprocess
from understudy.models.text.ngrams import (
    NgramConfig,
    NgramTokenizer,
    NgramTower,
    fit_lsa,
    tfidf,
    word_vocabulary,
)
from understudy.reinforce.encoders import ModuleEncoder, NgramEncoder, RandomConvEncoder
from understudy.reinforce.features import cache_features
from understudy.train.config import TrainConfig
from understudy.train.loop import fit
from understudy.train.paraphrase import ParaphraseBatches, ParaphraseStep
from understudy.train.pretext import TURNS, PretextBatches, PretextStep

SIZE = 16
PIXELS = Preprocess(size=SIZE, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
CONV = ConvConfig(image_size=SIZE, channels=(16, 32, 64), strides=(2, 2, 2))
LOOPS = np.array([1, 0, 0, 0, 0, 0, 1, 0, 2, 1])
"""Closed loops of each digit: with parity, the labels of pretraining."""

NAMES = {"a": ("conv-pretext", "tfidf-svd"), "b": ("random-conv-pca", "char-ngrams")}
"""Image and text encoder of each pair."""

SETTINGS: dict[str, Any] = {
    "sizes": [50, 200, 1000],
    "headline": 200,
    "steps": 300,
    "batch": 48,
    "lr": 2e-3,
    "dim": 64,
    "text_dim": 256,
    "hidden": 64,
    "depth": 4,
    "dropout": 0.2,
    "pretrain_steps": 600,
    "paraphrase_steps": 300,
    "encoder_images": 2000,
    "corpus": 3000,
    "pool": 4000,
    "uncurated": 2000,
    "test": 500,
}


def _pairs(count: int, split: str, seed: int, **options: Any) -> Any:
    """Return pairs whose digits are plain scans of 16 pixels."""
    from understudy.data.scenes import ape_pairs, digits

    made = ape_pairs.pairs(count, split, seed=seed, size=SIZE, **options)
    shown = made.labels >= 0
    made.images[shown] = digits.pictures(made.scan_rows[shown], SIZE).images
    return made


# -- what all arms of a seed share


def prepare(seed: int, context: Context) -> Mapping[str, Any]:
    """Make the store, train or fit the encoders, cache their features."""
    settings = context.settings
    home = context.seed_dir
    splits = {
        "train": _pairs(max(settings["sizes"]), "train", seed),
        "held-out": _pairs(settings["headline"], "test", seed + 1),
        "test": _pairs(settings["test"], "test", seed),
        "pool": _pairs(settings["pool"], "train", seed + 2, relevant=0.1),
    }
    store = Store.create(home / "store", [_table(s, p) for s, p in splits.items()], overwrite=True)
    spare = _pairs(settings["encoder_images"], "teacher", seed, relevant=0.7)
    corpus = _caption_groups(_pairs(settings["corpus"], "teacher", seed + 1, relevant=0.5))
    images = (
        _pretext_encoder(spare, settings, seed, home / "pretext"),
        RandomConvEncoder(NAMES["b"][0], spare.images, settings["dim"], filters=64, seed=seed),
    )
    texts = text_encoders(corpus, settings, seed, home / "paraphrase")
    encoders: dict[str, Any] = {}
    for modality, group in (("image", images), ("text", texts)):
        for encoder in group:
            cache_features(store, encoder, modality)
            facts = {"hash": encoder.hash, "dim": encoder.dim, "preprocess": encoder.preprocess}
            encoders[encoder.name] = facts
    for encoder in texts:
        save_file(encoder.module.state_dict(), home / f"{encoder.name}.safetensors")
    vocabulary = list(texts[0].module.config.vocabulary)
    return {"encoders": encoders, "vocabulary": vocabulary}


def _caption_groups(made: Any) -> list[list[str]]:
    """Return the caption corpus by picture: several captions of each digit, as in COCO."""
    by_scan: dict[int, list[str]] = {}
    for scan, text in zip(made.scan_rows.tolist(), made.texts, strict=True):
        by_scan.setdefault(scan, []).append(text)
    alone = by_scan.pop(-1, [])
    return list(by_scan.values()) + [[text] for text in alone]


def _table(split: str, made: Any) -> pa.Table:
    from understudy.data.scenes import pack

    count = len(made)
    return pa.table(
        {
            "id": pa.array([f"{split}/{i}" for i in range(count)]),
            "image": pack.pngs(made.images),
            "text": pa.array(made.texts),
            "label": pa.array(made.labels),
            "split": pa.array([split] * count),
        }
    )


def _pretext_encoder(
    spare: Any, settings: Mapping[str, Any], seed: int, out: Path
) -> ModuleEncoder:
    """Return a conv pretrained on rotations, parity and closed loops; never on digit names."""
    digit = np.maximum(spare.labels, 0)
    side = np.stack([digit % 2, LOOPS[digit]], axis=1)
    side[spare.labels < 0] = -1
    heads = (TURNS, 2, 3)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Classifier(
            ClassifierConfig(name="pretext", num_classes=sum(heads), image=CONV, preprocess=PIXELS)
        )
    steps = settings["pretrain_steps"]
    config = TrainConfig(
        steps=steps, lr=3e-3, warmup_steps=steps // 20, weight_decay=0.05, device="cpu", seed=seed
    )
    batches = PretextBatches(spare.images, side, PIXELS, 64, seed)
    fit(model, PretextStep(heads=heads), batches, config, out)
    return ModuleEncoder(NAMES["a"][0], model.image, PIXELS)


def ngram_configs(vocabulary: tuple[str, ...]) -> tuple[NgramConfig, NgramConfig]:
    """Return the tokenizers of the two text encoders."""
    return (
        NgramConfig(kind="words", orders=(1, 2), vocabulary=vocabulary, grams=2),
        NgramConfig(kind="chars", orders=(1, 3), buckets=4096),
    )


def text_encoders(
    groups: list[list[str]], settings: Mapping[str, Any], seed: int, out: Path
) -> tuple[NgramEncoder, NgramEncoder]:
    """Return TF-IDF with SVD over words, and hashed character n-grams trained on paraphrases.

    What was said of one picture is one document to the SVD, and alike to the paraphrase objective.
    """
    dim = settings["text_dim"]
    documents = [" . ".join(group) for group in groups]
    words, chars = ngram_configs(word_vocabulary(documents, orders=(1, 2)))
    tokenizer, hashed = NgramTokenizer(chars), NgramTower(chars, dim, seed)
    hashed.weights.copy_(tfidf(tokenizer, documents)[1])
    steps = settings["paraphrase_steps"]
    config = TrainConfig(steps=steps, lr=1e-3, warmup_steps=steps // 20, device="cpu", seed=seed)
    fit(hashed, ParaphraseStep(), ParaphraseBatches(groups, tokenizer, 64, seed), config, out)
    return (
        NgramEncoder(NAMES["a"][1], fit_lsa(documents, words, dim, seed=seed)),
        NgramEncoder(NAMES["b"][1], hashed),
    )
