"""Length buckets against concat-and-chunk at a long context, on the processor.

Documents are the standard library's sources. The same model takes steps of as many tokens on rows
of one length, and the mixture's time is that of its buckets' steps (`measure_steps`: 3 steps of
warm-up, the median of 10). Beside it what the cost model says from operations alone.

    .venv/bin/python benchmarks/buckets.py [--quick]
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

from common import write_result

LOW, HIGH, PER_STEP, VOCABULARY = 6, 13, 16_384, 4_096
GOAL, TOLERANCE = 1.5, 0.15


def tokens_by_bucket(folder: Path) -> dict[int, int]:
    """Return what each bucket holds of the standard library's sources."""
    import json

    from understudy.curate.tokens.jobs import TokenRun
    from understudy.curate.tokens.pack import pack_documents
    from understudy.curate.tokens.pack_config import PackConfig
    from understudy.curate.tokens.tokenise import TokeniseConfig, tokenise
    from understudy.data.corpora import stdlib_sources
    from understudy.models.text.train_tokenizer import train_byte_bpe

    texts = [document.text for document in stdlib_sources()]
    (folder / "texts.jsonl").write_text("\n".join(json.dumps({"text": t}) for t in texts))
    coder = train_byte_bpe(texts[::5], VOCABULARY)
    (folder / "tokenizer.json").write_text(coder.to_json())
    config = TokeniseConfig(tokenizer=str(folder / "tokenizer.json"))
    documents = tokenise(folder / "texts.jsonl", folder / "documents", config, TokenRun(workers=1))
    packed = pack_documents(
        documents.path,
        folder / "buckets",
        PackConfig(kind="buckets", min_log2=LOW, max_log2=HIGH),
        TokenRun(workers=1),
    )
    return {k: len(rows) << k for k, rows in packed.buckets.items()}


def stepper(precision: str) -> Any:
    """Return a function that trains one step on rows of the length it is given."""
    import torch

    from understudy import models
    from understudy.train.lm import LMStep
    from understudy.train.lm_config import lm_train_config
    from understudy.train.optim import make_optimizer, trainable
    from understudy.train.precision import autocast

    changes = {"decoder.context": 1 << HIGH, "decoder.vocab_size": VOCABULARY}
    model = models.create("openlm-nano", seed=0, **changes)
    optimizer = make_optimizer(trainable(model), lm_train_config(10, warmup_steps=1))
    objective = LMStep(z_loss=1e-4)
    generator = torch.Generator().manual_seed(0)

    def step(length: int) -> None:
        rows = torch.randint(VOCABULARY, (PER_STEP // length, length + 1), generator=generator)
        with autocast(precision, torch.device("cpu")):
            loss = objective(model, {"ids": rows[:, :-1], "targets": rows[:, 1:]})["loss"]
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def main() -> None:
    import torch

    from understudy import models
    from understudy.curate.tokens.cost import measure_steps, mixture_seconds
    from understudy.curate.tokens.stats import weighted_length
    from understudy.models.language.cost import training_flop

    torch.set_num_threads(1)
    quick = "--quick" in sys.argv
    with tempfile.TemporaryDirectory() as folder:
        held = tokens_by_bucket(Path(folder))
    lengths = [1 << k for k in sorted(held)]
    times = measure_steps(
        stepper("fp32"), lengths, warmup=1 if quick else 3, repeats=3 if quick else 10
    )
    steps = {k: n / PER_STEP for k, n in held.items()}
    mixture = mixture_seconds(steps, times) / sum(steps.values())
    chunks = times[1 << HIGH].median
    config: Any = models.config("openlm-nano")
    decoder = config.decoder
    equal = weighted_length(held)
    flop = {
        name: training_flop(decoder, s) for name, s in (("mixture", equal), ("chunks", 1 << HIGH))
    }
    measured, predicted = chunks / mixture, flop["chunks"] / flop["mixture"]
    off = predicted / measured - 1
    for length in lengths:
        print(f"rows of {length}: {times[length].median * 1e3:.0f} ms a step, "
              f"{PER_STEP / times[length].median:,.0f} tokens/s")  # fmt: skip
    print(f"mixture {PER_STEP / mixture:,.0f} tokens/s, chunks of {1 << HIGH} "
          f"{PER_STEP / chunks:,.0f}: ratio {measured:.2f}; by operations {predicted:.2f} "
          f"({off:+.0%})")  # fmt: skip
    write_result(
        "buckets",
        {
            "tokens_by_bucket": held,
            "length_a_token_sits_in": equal,
            "median_ms": {s: round(times[s].median * 1e3, 1) for s in lengths},
            "tokens_per_s": {"mixture": PER_STEP / mixture, "chunks": PER_STEP / chunks},
            "ratio": measured,
            "predicted_ratio": predicted,
            "prediction_off": off,
            "goals": {"ratio": GOAL, "prediction_off": TOLERANCE},
        },
    )
    met = measured >= GOAL and abs(off) <= TOLERANCE
    print(
        f"goals (ratio >= {GOAL}, prediction within {TOLERANCE:.0%}): {'met' if met else 'missed'}"
    )
    sys.exit(0 if met else 1)


if __name__ == "__main__":
    main()
