"""Peak memory of tokenise-and-shuffle while the input grows tenfold: it must stay flat.

Documents are the standard library's sources, each copy under another heading so that none is
equal. Tokenising, and packing into shuffled chunks, run in one process each time; its peak is what
the system says of it at the end. The packer may hold 8 MB of tokens, a fraction of the larger
input.

    .venv/bin/python benchmarks/tokenise_memory.py [--quick]
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import write_result

BASE, GROWTH, GOAL = 10, 10, 1.2
MEMORY, VOCABULARY, CONTEXT = 8 << 20, 4_096, 1_024


def write_input(folder: Path, copies: int, share: int) -> int:
    """Write `copies` of every `share`-th source, one file a copy; return the bytes of text."""
    from understudy.data.corpora import stdlib_sources

    texts = [document.text for document in stdlib_sources()][::share]
    folder.mkdir()
    for copy in range(copies):
        lines = (json.dumps({"text": f"# copy {copy} of {i}\n{t}"}) for i, t in enumerate(texts))
        (folder / f"{copy:03d}.jsonl").write_text("\n".join(lines) + "\n")
    return copies * sum(len(t.encode()) for t in texts)


def work(source: str, out: str) -> None:
    """Tokenise and pack; print the peak, the seconds and the tokens as JSON."""
    from understudy.curate.tokens.jobs import TokenRun
    from understudy.curate.tokens.pack import pack_documents
    from understudy.curate.tokens.pack_config import PackConfig
    from understudy.curate.tokens.tokenise import TokeniseConfig, tokenise

    start = time.perf_counter()
    tokenizer = str(Path(source).with_name("tokenizer.json"))
    run = TokenRun(workers=1)
    documents = tokenise(source, Path(out) / "documents", TokeniseConfig(tokenizer=tokenizer), run)
    pack = PackConfig(kind="concat", context=CONTEXT, memory=MEMORY)
    packed = pack_documents(documents.path, Path(out) / "rows", pack, run)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    facts = {"peak_mb": peak / 1e6, "seconds": time.perf_counter() - start}
    print(json.dumps({**facts, "tokens": packed.num_rows * CONTEXT}))


def measure(copies: int, share: int) -> dict[str, float]:
    """Run the work on so many copies in a process of its own."""
    from understudy.data.corpora import stdlib_sources
    from understudy.models.text.train_tokenizer import train_byte_bpe

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        size = write_input(folder / "texts", copies, share)
        texts = [document.text for document in stdlib_sources()][:: 5 * share]
        (folder / "tokenizer.json").write_text(train_byte_bpe(texts, VOCABULARY).to_json())
        words = [sys.executable, __file__, "--work", str(folder / "texts"), name]
        done = subprocess.run(words, check=True, capture_output=True, text=True)
    return {"text_mb": size / 1e6, **json.loads(done.stdout.splitlines()[-1])}


def main() -> None:
    share = 8 if "--quick" in sys.argv else 2
    runs = {f"{n} copies": measure(n, share) for n in (BASE, GROWTH * BASE)}
    for name, run in runs.items():
        print(
            f"{name:>10}: {run['text_mb']:,.1f} MB of text, {run['tokens']:,} tokens, peak "
            f"{run['peak_mb']:,.1f} MB, {run['text_mb'] / run['seconds']:.1f} MB/s"
        )
    first, last = runs.values()
    ratio = last["peak_mb"] / first["peak_mb"]
    verdict = "met" if ratio <= GOAL else "missed"
    print(f"peak at {GROWTH} x the input / peak: {ratio:.3f} (goal <= {GOAL}: {verdict})")
    facts = {"goal": GOAL, "memory_of_the_packer": MEMORY}
    print(write_result("tokenise_memory", {**facts, "runs": runs, "peak_ratio": round(ratio, 3)}))


if __name__ == "__main__":
    if "--work" in sys.argv:
        work(*sys.argv[sys.argv.index("--work") + 1 :])
    else:
        main()
