"""A tokenizer in the `tokenizers` library's JSON, which Rust, Swift, Kotlin and JavaScript read."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from understudy.core.errors import ModelError
from understudy.models.text.clean import PATTERN, SPECIAL, SUFFIX
from understudy.models.text.tokenizer import Tokenizer

PROBES = (
    "a photo of a cat",
    "A  Photo,\tof THE cat's 12 whiskers!",
    "naïve café -- 3x4 (don't)",
    "",
    "the quick brown fox jumps over the lazy dog " * 20,
)
"""Texts on which the written file must give the tokenizer's own ids."""


def portable_json(tokenizer: Tokenizer, probes: Sequence[str] = PROBES) -> str:
    """Return a `tokenizer.json`: cleaning, ids, start and end, truncation and padding included.

    `clean="clip"` also mends broken encodings and resolves HTML entities, which the format cannot
    say; do that before where texts need it. `"lower"` and `"whitespace"` are complete.

    Args:
        tokenizer: what to write.
        probes: texts on which both are compared.

    Raises:
        ModelError: the written tokenizer gives other ids for a probe.
    """
    from tokenizers import AddedToken, Regex, models, normalizers, pre_tokenizers, processors
    from tokenizers import Tokenizer as Backend

    names = sorted(tokenizer.vocab, key=tokenizer.vocab.__getitem__)
    start, end = SPECIAL
    vocab = {**tokenizer.vocab, start: tokenizer.start_id, end: tokenizer.end_id}
    split: Any = pre_tokenizers.Split(Regex(PATTERN), behavior="removed", invert=True)
    if tokenizer.kind == "words":
        backend = Backend(models.WordLevel(vocab, unk_token=names[tokenizer.unknown or 0]))
        backend.pre_tokenizer = split
    else:
        backend = Backend(models.BPE(vocab, tokenizer.merges, end_of_word_suffix=SUFFIX))
        bytewise = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        backend.pre_tokenizer = pre_tokenizers.Sequence([split, bytewise])
    steps: list[Any] = [normalizers.NFC()] if tokenizer.clean == "clip" else []
    steps += [normalizers.Replace(Regex(r"\s+"), " "), normalizers.Strip()]
    if tokenizer.clean != "whitespace":
        steps.append(normalizers.Lowercase())
    backend.normalizer = normalizers.Sequence(steps)
    backend.add_special_tokens([AddedToken(mark, normalized=False) for mark in SPECIAL])
    backend.post_processor = processors.TemplateProcessing(
        single=f"{start} $A {end}",
        special_tokens=[(start, tokenizer.start_id), (end, tokenizer.end_id)],
    )
    backend.enable_truncation(tokenizer.context_length)
    backend.enable_padding(length=tokenizer.context_length, pad_id=0, pad_token=names[0])
    written = backend.to_str(pretty=False)
    _check(tokenizer, Backend.from_str(written), probes)
    return json.dumps(json.loads(written), ensure_ascii=False, indent=1) + "\n"


def _check(tokenizer: Tokenizer, written: Any, probes: Sequence[str]) -> None:
    counted = tokenizer.num_truncated
    expected = tokenizer(list(probes)).tolist()
    tokenizer.num_truncated = counted
    for text, ids in zip(probes, expected, strict=True):
        found = written.encode(text).ids
        if found != ids:
            raise ModelError(
                f"tokenizer.json: {text[:40]!r} gives {found[:8]}... instead of {ids[:8]}...; "
                "this tokenizer cannot be written in that format, please report it."
            )
