"""The steps that pipelines name: name -> class, imported when a pipeline uses it."""

from __future__ import annotations

from understudy.core.lazy import LazyTable

_TEXT = "understudy.curate.text"
_DEDUP = "understudy.curate.dedup"
_QUALITY = "understudy.curate.quality"

STEPS = LazyTable(
    "step",
    {
        "extract": f"{_TEXT}.extract:Extract",
        "url-domain-ban": f"{_TEXT}.urls:UrlDomainBan",
        "url-word-ban": f"{_TEXT}.urls:UrlWordBan",
        "url-removal": f"{_TEXT}.urls:UrlRemoval",
        "newlines": f"{_TEXT}.edits:Newlines",
        "language": f"{_QUALITY}.language:Language",
        "page-length": f"{_TEXT}.filters:PageLength",
        "word-length": f"{_TEXT}.filters:WordLength",
        "symbol-ratio": f"{_TEXT}.filters:SymbolRatio",
        "bullet-lines": f"{_TEXT}.filters:BulletLines",
        "ellipsis-lines": f"{_TEXT}.filters:EllipsisLines",
        "alphabetic-words": f"{_TEXT}.filters:AlphabeticWords",
        "stop-words": f"{_TEXT}.filters:StopWords",
        "repetition": f"{_TEXT}.repetition:Repetition",
        "line-edits": f"{_TEXT}.line_edits:LineEdits",
        "exact-dedup": f"{_DEDUP}.exact:ExactDedup",
        "minhash-dedup": f"{_DEDUP}.minhash_step:MinHashDedup",
        "bloom-dedup": f"{_DEDUP}.bloom_step:BloomDedup",
        "substring-dedup": f"{_DEDUP}.substring_step:SubstringDedup",
        "quality-score": f"{_QUALITY}.score:QualityScore",
        "quality-threshold": f"{_QUALITY}.threshold:QualityThreshold",
        "perplexity-score": f"{_QUALITY}.perplexity:PerplexityScore",
        "decontaminate": f"{_QUALITY}.decontaminate:Decontaminate",
    },
)
