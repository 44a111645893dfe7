"""The pool for small claims about curation: real documents of ten kinds, one in ten of them clean.

    python -m understudy.data.corpora.pool OUT --documents 20000 --seed 0 [--format jsonl|warc]

Everything but the log lines is text that the machine has: docstrings and READMEs of installed
packages (clean), manual pages, licences, data files, minified code. So the pool is a function of
the configuration and of the environment; its card records both, and a fingerprint of the result.

Packages are dealt out to three roles: those in the pool, those for training a quality classifier
(`reference`), and those for evaluation (`held_out`). What is held out shares no paragraph with the
others.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import chain, islice

from understudy.core.errors import DataError
from understudy.core.hashing import hash_bytes
from understudy.core.progress import bar
from understudy.core.seeds import rng
from understudy.data.corpora.copies import exact_copy, near_copy, paragraph_keys, shared_share
from understudy.data.corpora.document import Document, pieces, text_key
from understudy.data.corpora.pool_config import KINDS, PoolConfig, quotas
from understudy.data.corpora.pool_kinds import Sources

SIGMA = 0.6
LEAST, MOST = 400, 8000
_MIN_WORDS = 50
_PIECES = 8
_MAX_SHARED = 0.1


@dataclass(frozen=True, kw_only=True, slots=True)
class PoolPage:
    """A document of the pool and what is true of it.

    Attributes:
        document: the document.
        kind: a key of `KINDS`.
        copy: `exact`, `near`, or empty for an original.
        of: id of the original of a copy.
        rate: share of the words that were drawn to be changed in a near copy.
    """

    document: Document
    kind: str
    copy: str = ""
    of: str = ""
    rate: float = 0.0

    @property
    def truth(self) -> dict[str, str | int | float | bool]:
        """The labels for evaluating a funnel; filters must not read them."""
        found = KINDS[self.kind]
        more = {"copy": self.copy, "of": self.of, "rate": self.rate} if self.copy else {}
        return {"kind": self.kind, "tier": found.tier, "clean": found.clean, **more}


@dataclass(frozen=True, kw_only=True, slots=True)
class Pool:
    """A pool in memory.

    Attributes:
        config: what it was made from.
        pages: the documents, shuffled.
        reference: clean documents for training a classifier.
        held_out: clean documents to evaluate on.
        code: source code to evaluate on.
        notes: what this machine lacks, in sentences.
    """

    config: PoolConfig
    pages: list[PoolPage]
    reference: list[PoolPage]
    held_out: list[PoolPage]
    code: list[PoolPage]
    notes: list[str] = field(default_factory=list)

    def fingerprint(self) -> str:
        """Return a hash of all ids and texts in their order."""
        parts = (self.pages, self.reference, self.held_out, self.code)
        return hash_bytes(
            *(
                text.encode("utf-8", "surrogatepass")
                for part in parts
                for page in part
                for text in (page.document.id, page.document.text)
            )
        )


def length(name: str, config: PoolConfig) -> int:
    """Return how long the pieces of a document are to be, in characters: lognormal, by its name."""
    drawn = rng("length", config.seed, name).lognormal(math.log(config.median_chars), SIGMA)
    return int(min(max(drawn, LEAST), MOST))


def cut(document: Document, config: PoolConfig) -> Iterator[Document]:
    """Cut a document into pieces of one drawn length; a short one stays as it is."""
    target = length(document.id, config)
    for i, text in enumerate(pieces(document.text, target, least=LEAST)):
        if i == 0 and len(text) == len(document.text):
            yield document
        else:
            yield replace(
                document, id=f"{document.id}#{i}", url=f"{document.url}?part={i}", text=text
            )


class _Draw:
    """Draws documents; no text twice."""

    def __init__(self, config: PoolConfig, sources: Sources) -> None:
        self.config, self.sources = config, sources
        self.seen: set[str] = set()

    def stream(self, kind: str, quota: int, roles: tuple[str, ...]) -> Iterator[Document]:
        """Yield documents of a kind: first so that no group has too many, then the others."""
        if kind == "log":
            yield from self.sources.logs(lambda name: length(name, self.config))
            return
        cap = max(1, math.ceil(self.config.group_share * quota))
        counts: Counter[str] = Counter()
        spare: list[Document] = []
        later = []
        for candidate in self.sources.candidates(kind, roles):
            if counts[candidate.group] >= cap:
                later.append(candidate)
                continue
            loaded = candidate.load()
            for i, piece in enumerate(self._pieces(loaded, kind) if loaded else ()):
                if i < _PIECES and counts[candidate.group] < cap:
                    counts[candidate.group] += 1
                    yield piece
                else:
                    spare.append(piece)
        yield from spare
        for candidate in later:
            loaded = candidate.load()
            if loaded:
                yield from self._pieces(loaded, kind)

    def _pieces(self, document: Document, kind: str) -> Iterator[Document]:
        for piece in cut(document, self.config):
            if KINDS[kind].clean and len(piece.text.split()) < _MIN_WORDS:
                continue
            key = text_key(piece.text)
            if key not in self.seen:
                self.seen.add(key)
                yield piece

    def originals(self, total: int) -> list[PoolPage]:
        """Draw the originals; what one kind lacks, others of its class give in proportion."""
        wanted = quotas(self.config.shares, total)
        streams = {kind: self.stream(kind, n, ("pool",)) for kind, n in wanted.items() if n}
        out: list[PoolPage] = []
        with bar("pool", total=total, unit="documents") as shown:
            for clean in (True, False):
                open_kinds = [kind for kind in streams if KINDS[kind].clean is clean]
                missing = {kind: wanted[kind] for kind in open_kinds}
                while sum(missing.values()):
                    if not open_kinds:
                        raise _too_few(clean, total, sum(missing.values()), self.config)
                    got: dict[str, int] = {}
                    for kind, n in missing.items():
                        drawn = [PoolPage(document=d, kind=kind) for d in islice(streams[kind], n)]
                        out.extend(drawn)
                        shown.advance(len(drawn))
                        got[kind] = len(drawn)
                    lacking = sum(missing.values()) - sum(got.values())
                    open_kinds = [kind for kind in open_kinds if got.get(kind) == missing.get(kind)]
                    weights = {kind: self.config.shares[kind] for kind in open_kinds}
                    scale = sum(weights.values()) or 1.0
                    missing = quotas({k: w / scale for k, w in weights.items()}, lacking)
                    missing = missing or {"": lacking}
        return out


def _too_few(clean: bool, total: int, missing: int, config: PoolConfig) -> DataError:
    what = "clean" if clean else "other"
    return DataError(
        f"pool: {missing:,} of the {what} documents that a pool of {config.documents:,} needs "
        "can't be made from what is installed here: ask for fewer, install more packages, or "
        "fetch 'pypi-docs' and add 'docs' to the mix."
    )


def _copies(originals: list[PoolPage], total: int, config: PoolConfig) -> list[PoolPage]:
    """Copy originals: some of them, each several times (geometric, mean `cluster`)."""
    random = rng("copies", config.seed)
    out: list[PoolPage] = []
    for row in random.permutation(len(originals)):
        if len(out) >= total:
            break
        page = originals[row]
        for number in range(1, int(random.geometric(1 / config.cluster)) + 1):
            if random.random() < config.near:
                rate = round(float(random.uniform(0.001, max(config.max_rate, 0.001))), 4)
                made = near_copy(page.document, number, rate, config.seed)
                how = "near"
            else:
                made, rate, how = exact_copy(page.document, number), 0.0, "exact"
            out.append(
                PoolPage(document=made, kind=page.kind, copy=how, of=page.document.id, rate=rate)
            )
    return out[:total]


def _apart(
    draw: _Draw, kinds: tuple[str, ...], quota: int, who: str, known: set[str]
) -> list[PoolPage]:
    """Draw documents of a role's packages that share no paragraph with `known`."""
    shares = {kind: draw.config.shares.get(kind, 0.1) for kind in kinds}
    streams = [
        (kind, draw.stream(kind, math.ceil(quota * share / sum(shares.values())), (who,)))
        for kind, share in shares.items()
    ]
    out: list[PoolPage] = []
    parts = [
        islice(
            _strangers(stream, known, kind), math.ceil(quota * shares[kind] / sum(shares.values()))
        )
        for kind, stream in streams
    ]
    rest = [_strangers(stream, known, kind) for kind, stream in streams]
    for page in chain(*parts, *rest):
        if len(out) >= quota:
            break
        out.append(page)
    return out


def _strangers(stream: Iterator[Document], known: set[str], kind: str) -> Iterator[PoolPage]:
    for document in stream:
        if shared_share(document.text, known) <= _MAX_SHARED:
            yield PoolPage(document=document, kind=kind)


def pool(config: PoolConfig | None = None) -> Pool:
    """Draw a pool.

    Args:
        config: how; by default 20,000 documents of the `dclm` preset.

    Raises:
        DataError: the machine has too few clean documents, or a fetched text isn't cached.
        ConfigError: a package isn't installed.
    """
    config = config or PoolConfig()
    sources = Sources(config)
    draw = _Draw(config, sources)
    copies = round(config.copy_share * config.documents)
    originals = draw.originals(config.documents - copies)
    pages = originals + _copies(originals, copies, config)
    order = rng("shuffle", config.seed).permutation(len(pages))
    clean = tuple(kind for kind in config.shares if KINDS[kind].clean) or ("docstrings",)
    known = {key for page in originals for key in paragraph_keys(page.document.text)}
    reference = _apart(draw, clean, config.reference, "reference", known)
    known.update(key for page in reference for key in paragraph_keys(page.document.text))
    held_out = _apart(draw, clean, config.held_out, "held_out", known)
    code = _code(draw, config, known)
    notes = dict.fromkeys(sources.notes)
    for name, part in (("reference", reference), ("held_out", held_out), ("code", code)):
        wanted = getattr(config, name)
        if len(part) < wanted:
            notes[f"{name}: {len(part):,} documents of the {wanted:,} asked for could be made."] = (
                None
            )
    return Pool(
        config=config,
        pages=[pages[i] for i in order],
        reference=reference,
        held_out=held_out,
        code=code,
        notes=list(notes),
    )


def _code(draw: _Draw, config: PoolConfig, known: set[str]) -> list[PoolPage]:
    found = (
        document
        for document in draw.stream("source", config.code, ("held_out",))
        if document.source == "stdlib"
    )
    return list(islice(_strangers(found, known, "source"), config.code))


if __name__ == "__main__":
    from understudy.data.corpora.pool_cli import main

    raise SystemExit(main())
