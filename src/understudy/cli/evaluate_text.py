"""`understudy evaluate text MODEL STORE_OR_JSONL`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from understudy.cli.common import note, parse_config, show, table

if TYPE_CHECKING:
    from understudy.evaluate.centered import CenteredScores
    from understudy.evaluate.core_tasks import TaskTable
    from understudy.evaluate.perplexity_documents import Document
    from understudy.evaluate.token_losses import ReadConfig

RESULTS = "results.json"
DOCUMENTS = "documents.jsonl"


@dataclass(frozen=True, kw_only=True)
class TextOptions:
    """Score a language model: held-out loss of documents, task files, long documents.

    Attributes:
        model: a run's folder or weights file of a language model with its tokenizer.
        data: documents: a store of texts or tokens, or JSON lines with a text field; none if empty.
        tasks: a folder of task files (JSONL, and tasks.yaml if there is one); none if absent.
        names: only these of the tasks.
        version: of the random baselines of CORE and EXTENDED: v1, v2, or a name for --baselines.
        baselines: a table of baselines of your own (CSV or JSON).
        long_context: document lengths in tokens to hide numbers in.
        depths: where in a document the number stands, 0 to 1.
        passkeys: documents for each length and depth.
        multi_document: JSON lines of questions about one of many documents.
        num_documents: documents in such a prompt.
        positions: also print the loss by position in the context.
        by: fields or columns to report the loss by, such as source or time.
        split: only rows of this split of a store.
        limit: documents at most; 0 for all.
        lead: none: a document's first token is not scored; end: the end-of-text token stands
            before it.
        close: also score the end-of-text token after a document.
        context: tokens that the model reads at once; 0 takes its own.
        stride: new tokens that each window of a longer document scores; 0 takes half the context.
        batch_tokens: tokens read at once, padding included.
        seed: of the hidden numbers.
        device: cpu or cuda.
        threads: of the processor.
        out: folder of the results.
        json: print JSON.
    """

    model: str
    data: str = ""
    tasks: Path | None = None
    names: tuple[str, ...] = ()
    version: str = "v2"
    baselines: Path | None = None
    long_context: tuple[int, ...] = ()
    depths: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75, 1.0)
    passkeys: int = 10
    multi_document: Path | None = None
    num_documents: tuple[int, ...] = (10, 20, 30)
    positions: bool = False
    by: tuple[str, ...] = ()
    split: str = ""
    limit: int = 0
    lead: Literal["none", "end"] = "none"
    close: bool = False
    context: int = 0
    stride: int = 0
    batch_tokens: int = 8192
    seed: int = 0
    device: str = "cpu"
    threads: int = 1
    out: Path = Path("runs/text")
    json: bool = False


def text(argv: Sequence[str], prog: str) -> None:
    """Parse and run `evaluate text MODEL [STORE_OR_JSONL]`."""
    count = next((i for i, word in enumerate(argv[:2]) if word.startswith("-")), len(argv[:2]))
    words, rest = list(argv[:count]), list(argv[count:])
    given = [x for pair in zip(("--model", "--data"), words, strict=False) for x in pair]
    options = parse_config(TextOptions, [*given, *rest], prog)
    _check(options, prog)

    import torch

    from understudy.core.files import write_json
    from understudy.evaluate.token_losses import ReadConfig
    from understudy.models.runs import load_run

    torch.set_num_threads(options.threads)
    table_of = _baselines(options)
    model: Any = load_run(options.model).to(options.device)
    _check_model(model, options.model)
    read = ReadConfig(
        context=options.context, stride=options.stride, batch_tokens=options.batch_tokens
    )
    context, stride = read.resolve(model)
    found: dict[str, Any] = {
        "model": options.model, "data": options.data, "context": context, "stride": stride,
        "lead": options.lead, "close": options.close,
    }  # fmt: skip
    if options.data:
        found |= _documents(model, options, read)
    if options.tasks is not None:
        found |= _tasks(model, options, read, table_of)
    if options.long_context:
        found["passkey"] = _passkeys(model, options, read)
    if options.multi_document is not None:
        found["multi_document"] = _multi_document(model, options)
    write_json(options.out / RESULTS, found)
    note(f"written: {options.out / RESULTS}")
    show(found, options.json, _report)


def _check(options: TextOptions, prog: str) -> None:
    from understudy.core.errors import ConfigError

    if not (options.data or options.tasks or options.long_context or options.multi_document):
        raise ConfigError(
            f"{prog}: give documents (a store or a .jsonl file), --tasks, --long-context or "
            "--multi-document to score on."
        )
    if options.positions and not options.data:
        raise ConfigError(f"{prog}: --positions needs documents.")


def _check_model(model: Any, name: str) -> None:
    from understudy.core.errors import ModelError
    from understudy.evaluate.lm_tasks_run import tokenizer_of

    if not isinstance(getattr(model, "context", None), int):
        kind = type(model).__name__
        raise ModelError(f"{name}: a {kind} is no language model; its texts cannot be scored.")
    tokenizer_of(model)


def _baselines(options: TextOptions) -> TaskTable:
    from understudy.evaluate.core_tasks import read_table, task_table

    if options.baselines is not None:
        return read_table(options.baselines, options.version)
    return task_table(options.version)


def _read_documents(model: Any, options: TextOptions) -> list[Document]:
    from understudy.core.errors import ConfigError
    from understudy.evaluate.perplexity_documents import read_jsonl, read_store

    shared: dict[str, Any] = {
        "by": options.by, "lead": options.lead, "close": options.close, "limit": options.limit
    }  # fmt: skip
    if ".jsonl" in Path(options.data).name:
        if options.split:
            raise ConfigError("evaluate text: --split is for stores; a JSONL file has none.")
        return read_jsonl(options.data, model.tokenizer, **shared)
    return read_store(options.data, model.tokenizer, split=options.split, **shared)


def _documents(model: Any, options: TextOptions, read: ReadConfig) -> dict[str, Any]:
    from understudy.evaluate.long_context import position_curve, to_plain
    from understudy.evaluate.perplexity import held_out_loss

    documents = _read_documents(model, options)
    loss = held_out_loss(model, documents, read)
    loss.write_documents(options.out / DOCUMENTS)
    note(f"written: {options.out / DOCUMENTS}")
    found: dict[str, Any] = {"held_out": loss.to_plain(options.by)}
    if options.positions:
        curve = position_curve(model, [d.ids for d in documents], config=read)
        found["positions"] = to_plain(curve)
    return found


def _tasks(
    model: Any, options: TextOptions, read: ReadConfig, baselines: TaskTable
) -> dict[str, Any]:
    from understudy.evaluate.centered import aggregate
    from understudy.evaluate.lm_tasks_run import run_tasks

    assert options.tasks is not None
    results = run_tasks(model, options.tasks, config=read, names=options.names)
    centered: CenteredScores = aggregate({r.name: r.accuracy for r in results}, baselines)
    return {"tasks": [r.to_plain() for r in results], "centered": centered.to_plain()}


def _passkeys(model: Any, options: TextOptions, read: ReadConfig) -> list[dict[str, Any]]:
    from understudy.evaluate.long_context import passkey_grid, to_plain

    cells = passkey_grid(
        model,
        options.long_context,
        options.depths,
        count=options.passkeys,
        config=read,
        seed=options.seed,
    )
    return to_plain(cells)


def _multi_document(model: Any, options: TextOptions) -> dict[str, Any]:
    from understudy.evaluate.long_context_qa import multi_document, read_multi_document

    assert options.multi_document is not None
    questions = read_multi_document(options.multi_document)
    scores = multi_document(model, questions, options.num_documents)
    return {str(count): score for count, score in scores.items()}


def _report(found: dict[str, Any]) -> str:
    """Return the results as tables."""
    parts = []
    if "held_out" in found:
        parts.append(_loss_table(found["held_out"]))
    if "positions" in found:
        rows = [(b["start"], b["stop"] - 1, b["tokens"], b["loss"]) for b in found["positions"]]
        parts.append(table(rows, ("tokens before, from", "to", "tokens", "loss")))
    if "tasks" in found:
        parts += _task_tables(found["tasks"], found["centered"])
    if "passkey" in found:
        cells = [
            (c["length"], c["depth"], c["count"], c["accuracy"], c["loss"])
            for c in found["passkey"]
        ]
        parts.append(table(cells, ("length", "depth", "documents", "found", "loss")))
    if "multi_document" in found:
        rows = [
            (int(n), s["exact"], s["contains"], s["cut"])
            for n, s in found["multi_document"].items()
        ]
        parts.append(table(rows, ("documents", "exact", "contains", "prompts cut")))
    return "\n\n".join(parts)


def _loss_table(held_out: dict[str, Any]) -> str:
    header = ("documents of", "count", "tokens", "loss", "low", "high", "perplexity", "bits/byte")
    keys = ("documents", "tokens", "loss", "low", "high", "perplexity", "bits_per_byte")
    rows = [("all", *(held_out["all"][k] for k in keys))]
    for name, groups in held_out["by"].items():
        rows += [(f"{name} {value}", *(s[k] for k in keys)) for value, s in groups.items()]
    return table(rows, header)


def _task_tables(tasks: list[dict[str, Any]], centered: dict[str, Any]) -> list[str]:
    known = centered["centered"]
    rows = [
        (t["name"], t["num_fewshot"], t["count"], t["accuracy"], t["standard_error"],
         known.get(t["name"]))
        for t in tasks
    ]  # fmt: skip
    header = ("task", "shots", "questions", "accuracy", "s.e.", "centered")
    lines = []
    for name, missing in (("core", "missing_core"), ("extended", "missing_extended")):
        value = centered[name]
        if value == "N/A":
            lost = len(centered[missing])
            reason = f"{lost} tasks are missing" if lost else "baselines are missing"
            value = f"N/A ({reason})"
        else:
            value = f"{value:.5f}"
        lines.append(f"{name.upper()} {centered['version']}: {value}")
    return [table(rows, header), "\n".join(lines)]
