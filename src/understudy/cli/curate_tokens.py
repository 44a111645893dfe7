"""`understudy curate tokenise`, `pack` and `buckets`: documents to training sequences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import tyro

from understudy.cli.common import note, parse, parse_config, show, table
from understudy.core.errors import ConfigError
from understudy.curate.tokens.jobs import TokenRun
from understudy.curate.tokens.pack_config import PackConfig

Positional = tyro.conf.Positional


def tokenise(argv: Sequence[str], prog: str) -> int:
    """Parse and run `curate tokenise`."""

    def command(
        places: Positional[tuple[str, ...]],
        tokenizer: str,
        eot: str = "",
        dtype: str = "",
        facts: tuple[str, ...] = ("source",),
        lenient: bool = False,
        workers: int = 0,
        on: str = "local",
        overwrite: bool = False,
        json: bool = False,
    ) -> int:
        """Turn documents into a token store, one row a document.

        Args:
            places: files, folders or stores with texts, and then the store to write.
            tokenizer: tokenizer.json, a folder with one, a tokenizer that this project saved, or
                tiktoken:NAME.
            eot: the token that ends documents; by default the one that the tokenizer names.
            dtype: uint16 or uint32; by default as small as the ids allow.
            facts: fields to keep as columns, name or name:type.
            lenient: skip and count documents that cannot be used instead of stopping.
            workers: processes, 0 for one a core.
            on: local, ray or ray://host:port.
            overwrite: replace a store that is there.
            json: print JSON.
        """
        from understudy.curate.tokens.tokenise import TokeniseConfig
        from understudy.curate.tokens.tokenise import tokenise as run

        if len(places) < 2:
            raise ConfigError(f"{prog}: name inputs and then the store, then --tokenizer FILE.")
        *inputs, store = places
        config = TokeniseConfig(
            tokenizer=tokenizer, eot=eot, dtype=dtype, facts=facts, strict=not lenient
        )
        made = run(inputs, store, config, TokenRun(on=on, workers=workers, overwrite=overwrite))
        _report(made, json)
        return 0

    return parse(command, argv, prog)


@dataclass(kw_only=True)
class PackCommand:
    """Turn a token store of documents into shuffled training sequences.

    Attributes:
        documents: the token store; also the first word of the command.
        store: where the sequences go; also the second word.
        pack: which sequences.
        run: where and with how many processes.
        json: print JSON.
    """

    documents: str
    store: str
    pack: PackConfig = field(default_factory=lambda: PackConfig(kind="buckets"))
    run: TokenRun = field(default_factory=TokenRun)
    json: bool = False


def pack(argv: Sequence[str], prog: str) -> int:
    """Run `curate pack`."""
    from understudy.curate.tokens.pack import pack_documents

    words = list(argv)
    names = ["--documents", "--store"]
    places = [w for w in words[:2] if not w.startswith("-")]
    named = [part for pair in zip(names, places, strict=False) for part in pair]
    command = parse_config(PackCommand, [*named, *words[len(places) :]], prog)
    made = pack_documents(command.documents, command.store, command.pack, command.run)
    _report(made, command.json)
    return 0


def _report(made: Any, as_json: bool) -> None:
    from understudy.curate.tokens.jobs import made_by

    facts = {"store": str(made.path), **made.info.to_plain(), "made": made_by(made)}
    rows = [(k, v) for k, v in facts.items() if isinstance(v, str | int | float) and v != ""]
    stats = facts["made"].get("stats", {})
    rows += [(k, v) for k, v in stats.items() if isinstance(v, str | int | float)]
    show(facts, as_json, lambda _: table(rows, ("tokens", made.info.kind)))
    note(f"wrote {made.path}")


def buckets(argv: Sequence[str], prog: str) -> int:
    """Parse and run `curate buckets`."""

    def command(
        store: Positional[str],
        tokens_per_step: int,
        curriculum: str = "grow-p2",
        cycles: int = 8,
        tokens: int = 0,
        repeat: bool = False,
        context: int = 0,
        model: str = "",
        world: int = 1,
        accumulate: int = 1,
    ) -> int:
        """Print what a run over a store of buckets comes to, and what it saves.

        Args:
            store: a token store of kind buckets.
            tokens_per_step: input tokens of an optimiser step.
            curriculum: uniform, grow-linear, grow-p2, grow-p100, natural or only-K.
            cycles: rounds of the curriculum.
            tokens: of an epoch; 0 for everything.
            repeat: allow more tokens than there are.
            context: of the concat-and-chunk rows to compare with; 0 for the longest bucket.
            model: name of a language model, for its cost.
            world: ranks.
            accumulate: micro-batches of a step.
        """
        from understudy.curate.tokens.plan import plan_buckets
        from understudy.data.tokens import TokenStore

        held = {k: len(rows) for k, rows in TokenStore.open(store).buckets.items()}
        plan = plan_buckets(
            held,
            tokens_per_step,
            tokens=tokens or None,
            curriculum=curriculum,
            cycles=cycles,
            repeat=repeat,
            context=context,
            model=_decoder(model) if model else None,
            world=world,
            accumulate=accumulate,
        )
        print("\n".join(plan.lines()))
        return 0

    return parse(command, argv, prog)


def _decoder(name: str) -> Any:
    from understudy import models
    from understudy.models.language.language_config import LanguageConfig

    config: Any = models.config(name)
    if not isinstance(config, LanguageConfig):
        raise ConfigError(f"curate buckets: '{name}' is no language model; try openlm-1b.")
    return config.decoder
