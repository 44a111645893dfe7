"""Let EleutherAI's lm-eval run our language models.

    >>> from understudy.evaluate.lm_eval_adapter import run_lm_eval
    >>> found = run_lm_eval(model, ["arc_easy"], num_fewshot=10)           # doctest: +SKIP
    >>> found["results"]["arc_easy"]["acc_norm,none"]                      # doctest: +SKIP

A task and its data are lm-eval's own: named ones are fetched by it, those of a folder
(`include_path`) may read local files. lm-eval is imported when it is used.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from understudy.core.errors import ConfigError, DataError
from understudy.core.lazy import require
from understudy.evaluate.lm_tasks_generate import Generate, greedy, stop_at
from understudy.evaluate.lm_tasks_run import tokenizer_of
from understudy.evaluate.token_losses import ReadConfig, token_losses
from understudy.models.language.coder import Coder

PURPOSE = "running EleutherAI's lm-eval tasks"
MAX_TOKENS = 256
"""Generated tokens of a task that does not say how many; half of the context if that is less."""
_LIMITS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")


class _Adapter:
    """A language model of ours as lm-eval sees it; its base class comes with lm-eval."""

    cache_hook: Any

    def __init__(
        self, model: Any, tokenizer: Coder, config: ReadConfig, generate: Generate
    ) -> None:
        super().__init__()
        self.model, self.coder, self.config, self.generate = model, tokenizer, config, generate
        self.max_length, _ = config.resolve(model)

    @property
    def eot_token_id(self) -> int:
        """The end-of-text token, which also stands before a text without context."""
        return self.coder.end_id

    @property
    def tokenizer_name(self) -> str:
        """What lm-eval's request cache tells tokenizers apart by."""
        return self.coder.fingerprint()

    def tok_encode(
        self, string: str, add_special_tokens: bool | None = None, **_: Any
    ) -> list[int]:
        """Return the ids of a text, nothing added."""
        return self.coder.encode(string)

    def _loglikelihood_tokens(self, requests: Sequence[Any], **_: Any) -> list[tuple[float, bool]]:
        rows, lengths = [], []
        for _texts, context, scored in requests:
            if not 0 < len(scored) <= self.max_length:
                raise DataError(
                    f"lm-eval: a continuation of {len(scored)} tokens; the model reads 1 to "
                    f"{self.max_length}."
                )
            rows.append([*context, *scored][-(self.max_length + 1) :])
            lengths.append(len(scored))
        starts = [len(row) - n for row, n in zip(rows, lengths, strict=True)]
        scores = token_losses(self.model, rows, self.config, scored_from=starts, label="lm-eval")
        found = []
        for request, score, n in zip(requests, scores, lengths, strict=True):
            total = -float(score.losses[-n:].sum(dtype="float64"))
            answer = (total, bool(score.greedy[-n:].all()))
            self.cache_hook.add_partial("loglikelihood", request[0], answer)
            found.append(answer)
        return found

    def loglikelihood_rolling(
        self, requests: Sequence[Any], disable_tqdm: bool = False
    ) -> list[float]:
        """Return the log-likelihood of whole texts, long ones in windows."""
        rows = [[self.eot_token_id, *self.coder.encode(r.args[0])] for r in requests]
        # lm-eval's windows overlap as little as they can
        config = ReadConfig(
            context=self.max_length,
            stride=self.max_length,
            batch_tokens=self.config.batch_tokens,
        )
        found = []
        for request, score in zip(
            requests, token_losses(self.model, rows, config, label="lm-eval"), strict=True
        ):
            total = -float(score.losses.sum(dtype="float64"))
            self.cache_hook.add_partial("loglikelihood_rolling", request.args, total)
            found.append(total)
        return found

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """Return greedy continuations, each up to the first of its stop texts."""
        groups: dict[tuple[tuple[str, ...], int], list[int]] = {}
        for i, request in enumerate(requests):
            groups.setdefault(self._options(request.args[1]), []).append(i)
        found = [""] * len(requests)
        for (stops, limit), numbers in groups.items():
            room = self.max_length - limit
            rows = [self.coder.encode(requests[i].args[0])[-room:] for i in numbers]
            rows = [row or [self.eot_token_id] for row in rows]
            made = self.generate(rows, limit, stop_at(stops, self.coder))
            for i, ids in zip(numbers, made, strict=True):
                text = self.coder.decode(ids)
                for stop in stops:
                    text = text.split(stop)[0]
                self.cache_hook.add_partial("generate_until", requests[i].args, text)
                found[i] = text
        return found

    def _options(self, options: dict[str, Any]) -> tuple[tuple[str, ...], int]:
        if options.get("do_sample") or float(options.get("temperature") or 0.0) > 0:
            raise ConfigError(
                "lm-eval: this task samples its answers (do_sample or temperature); only "
                "greedy decoding is supported: set do_sample to false."
            )
        until = options.get("until") or []
        stops = (until,) if isinstance(until, str) else tuple(until)
        given = next((int(options[k]) for k in _LIMITS if options.get(k) is not None), 0)
        limit = given or min(MAX_TOKENS, self.max_length // 2)
        if limit >= self.max_length:
            raise ConfigError(
                f"lm-eval: max_gen_toks {limit} leaves no room for a prompt in the model's "
                f"context of {self.max_length}; lower it (gen_kwargs)."
            )
        return tuple(stop for stop in stops if stop), limit


@cache
def adapter_class() -> type:
    """Return the class that lm-eval calls, a subclass of its `TemplateLM`.

    Raises:
        MissingExtraError: lm-eval is not installed.
    """
    base: Any = require("lm_eval.api.model", "evals", PURPOSE).TemplateLM
    return type("UnderstudyLM", (_Adapter, base), {})


def lm_eval_model(
    model: Any,
    tokenizer: Coder | None = None,
    *,
    config: ReadConfig | None = None,
    generate: Generate | None = None,
) -> Any:
    """Return a model as `lm_eval.simple_evaluate(model=...)` takes it.

    Args:
        model: in eval mode; see `understudy.evaluate.token_losses`.
        tokenizer: the model's own by default.
        config: how sequences are read.
        generate: continues prompts; greedy decoding by default.

    Raises:
        MissingExtraError: lm-eval is not installed.
        ModelError: no tokenizer.
    """
    cls = adapter_class()
    coder = tokenizer_of(model, tokenizer)
    writer = generate or greedy(model, end_ids=(coder.end_id,))
    return cls(model, coder, config or ReadConfig(), writer)


def run_lm_eval(
    model: Any,
    tasks: Sequence[Any],
    *,
    tokenizer: Coder | None = None,
    config: ReadConfig | None = None,
    include_path: str | Path | None = None,
    num_fewshot: int | None = None,
    limit: int | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Run lm-eval's tasks.

    Args:
        model: see `lm_eval_model`.
        tasks: names, or task configurations.
        tokenizer: see `lm_eval_model`.
        config: see `lm_eval_model`.
        include_path: a folder of task YAML files of one's own.
        num_fewshot: solved examples; the tasks' own number by default.
        limit: questions of each task at most.
        **options: passed to `lm_eval.simple_evaluate`.

    Returns:
        lm-eval's results; `understudy.evaluate.centered_results` reads them from a file.

    Raises:
        MissingExtraError: lm-eval is not installed.
        ConfigError: a task that lm-eval does not know.
    """
    harness = require("lm_eval", "evals", PURPOSE)
    manager_class = require("lm_eval.tasks", "evals", PURPOSE).TaskManager
    manager = manager_class(include_path=None if include_path is None else str(include_path))
    unknown = [t for t in tasks if isinstance(t, str) and t not in manager.all_tasks]
    if unknown:
        raise ConfigError(
            f"lm-eval: there is no task '{unknown[0]}'; its YAML files are looked for in its own "
            f"collection{f' and in {include_path}' if include_path else ''}."
        )
    found = harness.simple_evaluate(
        model=lm_eval_model(model, tokenizer, config=config),
        tasks=list(tasks),
        num_fewshot=num_fewshot,
        limit=limit,
        task_manager=manager,
        **options,
    )
    return {} if found is None else found
