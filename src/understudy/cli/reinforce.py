"""`understudy reinforce STORE --config F`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from understudy.cli.common import parse_config, show, table, take_flag
from understudy.core.errors import ConfigError


def reinforce(argv: Sequence[str], prog: str) -> int:
    """Ask teachers once what they know about every sample; store it beside the sample.

    `STORE` comes first; the options are the fields of `ReinforceConfig`. `--dry-run` prints bytes
    and teacher calls, `--verify` replays stored views and teacher outputs (and exits with 1 if some
    do not, like `data verify`), `--json` prints JSON.
    """
    from understudy.data.store import Store
    from understudy.reinforce import generate
    from understudy.reinforce.config import ReinforceConfig

    dry, rest = take_flag(argv, "--dry-run")
    check, rest = take_flag(rest, "--verify")
    as_json, rest = take_flag(rest, "--json")
    path = None
    if rest and not rest[0].startswith("-"):
        path, rest = rest[0], rest[1:]
    elif not {"-h", "--help"} & set(rest):
        raise ConfigError(f"{prog}: name the store first, for example '{prog} my-store'.")
    usage = f"{prog} STORE [--dry-run] [--verify] [--config F]"
    config = parse_config(ReinforceConfig, rest, usage)
    assert path is not None
    store = Store.open(path)
    if dry:
        from understudy.reinforce.plan import plan

        costs = plan(store, config)
        print(json.dumps(costs, indent=2) if as_json else _facts(costs))
        return 0
    if check:
        from understudy.reinforce.verify import verify

        problems = verify(store, config)
        show({"path": str(path), "problems": problems}, as_json, _problems)
        return 1 if problems else 0
    report = generate.reinforce(store, config)
    if as_json:
        print(json.dumps(report.to_dict(), indent=2))
        return 0
    rows = [(part, seconds) for part, seconds in sorted(report.seconds.items())]
    print(table(rows, ("part", "seconds")))
    print(f"{path}: {report.rows:,} rows, {len(report.columns)} columns, {report.bytes:,} bytes")
    return 0


def _problems(facts: dict[str, Any]) -> str:
    problems, path = facts["problems"], facts["path"]
    if not problems:
        return f"{path}: stored views and teacher outputs replay"
    return "\n".join([*problems, f"{path}: {len(problems)} stored values do not replay"])


def _facts(costs: dict[str, object]) -> str:
    return "\n".join(f"{key}: {value}" for key, value in costs.items())
