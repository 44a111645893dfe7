"""Small corpora and tokenizers; run as a script it tokenises and packs, to be killed on the way."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np

from understudy.curate.tokens import cells, pack, pack_unit, tokenise_unit
from understudy.curate.tokens.jobs import TokenRun, made_by
from understudy.curate.tokens.pack_config import PackConfig
from understudy.curate.tokens.tokenise import TokeniseConfig, tokenise
from understudy.data.tokens import TokenInfo, TokenStore

WORDS = ["to", "be", "or", "not", "that", "is", "the", "question", "whether", "tis", "nobler"]


def texts(count: int, seed: int = 0) -> list[str]:
    """Return documents of very different lengths."""
    draw = np.random.default_rng(seed)
    sizes = np.exp(draw.normal(3.5, 1.2, count)).astype(int) + 1
    return [f"{i} " + " ".join(draw.choice(WORDS, n)) for i, n in enumerate(sizes)]


def write_lines(path: Path, documents: list[str]) -> Path:
    """Write JSON lines with ids."""
    lines = (json.dumps({"id": f"d{i}", "text": t, "time": i}) for i, t in enumerate(documents))
    path.write_text("\n".join(lines) + "\n")
    return path


def write_tokenizer(folder: Path) -> Path:
    """Train a small byte-level BPE and write it."""
    from understudy.models.text.train_tokenizer import train_byte_bpe

    path = folder / "tokenizer.json"
    path.write_text(train_byte_bpe(texts(50, 9), 300).to_json())
    return path


def write_documents(path: Path, count: int, mean: int = 200, seed: int = 0) -> TokenStore:
    """Write a token store of documents whose tokens tell where they come from."""
    draw = np.random.default_rng(seed)

    def batches():
        at = 0
        for start in range(0, count, 500):
            sizes = draw.geometric(1 / mean, min(500, count - start)) + 1
            rows = [
                np.arange(at + a, at + a + n) % 60_000 + 1
                for a, n in zip(np.cumsum(sizes) - sizes, sizes, strict=True)
            ]
            at += int(sizes.sum())
            for row in rows:
                row[-1] = 0
            yield {"id": [f"d{i}" for i in range(start, start + len(rows))], "tokens": rows}

    info = TokenInfo(
        kind="documents", tokenizer="toy", tokenizer_hash="t", vocab_size=60_001, eot_id=0
    )
    return TokenStore.create(path, batches(), info)


TOKENISE = {"unit_bytes": 8_000, "facts": ("source", "time:int64")}
PACK = PackConfig(kind="concat", context=32, memory=200_000, seed=3)


def peak_before_writing(store: str, out: str, memory: int) -> None:
    """Pack, and print the peak in KiB when all cells are shuffled, and the statistics."""
    peaks: list[int] = []
    write = pack._write

    def watched(*arguments):
        # not ru_maxrss, which begins at what the parent held when it forked
        status = Path("/proc/self/status").read_text().splitlines()
        peaks.append(next(int(line.split()[1]) for line in status if line.startswith("VmHWM")))
        return write(*arguments)

    pack._write = watched
    config = PackConfig(kind="buckets", min_log2=5, max_log2=9, memory=memory)
    stats = made_by(pack.pack_documents(store, out, config, TokenRun(workers=1)))["stats"]
    print(peaks[0], stats["largest_cell_bytes"], stats["cells"], stats["tokens"])


def slowly(work):
    """Return a task that takes long enough for a kill to hit the next one."""

    def slow(**arguments):
        time.sleep(0.03)
        found = work(**arguments)
        time.sleep(0.03)
        return found

    return slow


def main() -> None:
    """`work folder`: tokenise and pack. `rss store out memory`: pack, watching the memory."""
    what, folder, *rest = sys.argv[1:]
    if what == "rss":
        peak_before_writing(folder, rest[0], int(rest[1]))
        return
    path, run = Path(folder), TokenRun(workers=1)
    for module, name in (
        (tokenise_unit, "tokenise_unit"),
        (pack_unit, "pack_unit"),
        (cells, "shuffle_cell"),
    ):
        setattr(module, name, slowly(getattr(module, name)))
    config = TokeniseConfig(tokenizer=str(path / "tokenizer.json"), **TOKENISE)
    tokenise(path / "a.jsonl", path / "docs.store", config, run)
    pack.pack_documents(path / "docs.store", path / "rows.store", PACK, run)


if __name__ == "__main__":
    main()
