"""`understudy update serve STORE`: answer queries over HTTP while a gallery is backfilled."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from understudy.cli.common import note, parse_config, positional_store

if TYPE_CHECKING:
    from understudy.update.serve import Service
    from understudy.update.serve_config import ServeConfig
    from understudy.update.serve_encoders import Encoders
    from understudy.update.serve_http import HttpServer


def _few_threads(threads: int) -> None:
    """Let a search use this many threads; libraries read it when they are first imported."""
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, str(threads))
    for name in ("LANCE_CPU_THREADS", "LANCE_IO_THREADS"):
        os.environ.setdefault(name, str(max(2, threads)))
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads)


@dataclass(frozen=True, kw_only=True, slots=True)
class ServeOptions:
    """Answer queries by vector, text or image: new vectors where there are, else mapped ones.

    The token comes from --token-file, from UNDERSTUDY_SERVE_TOKEN, or is drawn and shown once.

    Attributes:
        store: the store; also the first word of the command.
        new: column of the new model's own vectors, or a mixed column.
        mapped: column of vectors mapped to that model; found by its name when empty.
        model: the new model, for queries by text and image, as for 'understudy update encode'.
        model_column: payload column that a model fitted to the store's rows was fitted to.
        model_version: version of a function as a model.
        metric: cosine, dot or l2.
        search: memory, index, stream, or auto.
        memory_mb: the most that vectors in memory may take.
        build_index: first index the columns that have none, for --search index.
        host: address to listen on.
        port: to listen on; 0 takes a free one.
        allow_remote: listen on an address that other machines reach (no encryption).
        token_file: file of mode 600 with the token.
        max_top_k: most neighbours of a query.
        max_body_mb: most megabytes of a request.
        max_pixels: most pixels of an image.
        workers: searches at a time.
        connections: open connections at a time.
        threads: of one search.
        poll: seconds between looks for a new version.
        quiet: log problems only.
        json: print where it listens as one line of JSON.
    """

    store: Path
    new: str = ""
    mapped: str = ""
    model: str = ""
    model_column: str = ""
    model_version: str = ""
    metric: str = "cosine"
    search: str = "auto"
    memory_mb: int = 4096
    build_index: bool = False
    host: str = "127.0.0.1"
    port: int = 8741
    allow_remote: bool = False
    token_file: Path | None = None
    max_top_k: int = 1000
    max_body_mb: float = 8.0
    max_pixels: int = 32_000_000
    workers: int = 2
    connections: int = 64
    threads: int = 1
    poll: float = 1.0
    quiet: bool = False
    json: bool = False


def serve(argv: Sequence[str], prog: str) -> int:
    """Parse and run `update serve STORE`."""
    options = parse_config(ServeOptions, positional_store(argv), prog)
    _few_threads(options.threads)

    from understudy.update.serve import Service
    from understudy.update.serve_run import run
    from understudy.update.serve_token import find_token

    config = _config(options)
    logging.basicConfig(
        level=logging.WARNING if options.quiet else logging.INFO,
        format="%(asctime)s %(levelname).1s %(message)s",
        stream=sys.stderr,
    )
    token, drawn = find_token(options.token_file)
    if options.build_index:
        _build_index(config)
    service = Service(config, _encoders(config, options) if options.model else None)
    if service.state()["search"] == "index":
        _print_recall(service)
    if drawn:
        note(f"token, shown this once: {drawn}")
    answered = run(service, token, lambda server: _print_ready(server, options.json))
    note("stopped" if answered else "stopped; some running requests were cut off")
    return 0


def _config(options: ServeOptions) -> ServeConfig:
    from understudy.update.queries import Limits
    from understudy.update.serve_config import ServeConfig

    names = ("new", "mapped", "metric", "search", "host", "port", "allow_remote", "workers")
    return ServeConfig(
        store=str(options.store),
        memory_bytes=int(options.memory_mb * 1e6),
        connections=options.connections,
        poll_s=options.poll,
        limits=Limits(
            body_bytes=int(options.max_body_mb * 1e6),
            pixels=options.max_pixels,
            top_k=options.max_top_k,
        ),
        **{name: getattr(options, name) for name in names},
    )


def _encoders(config: ServeConfig, options: ServeOptions) -> Encoders:
    from understudy.data.store import Store
    from understudy.update.serve_encoders import open_encoders
    from understudy.update.serve_versions import open_newest

    gallery = open_newest(Store.open(config.store), config.new, config.mapped)
    return open_encoders(
        options.model, gallery, column=options.model_column, version=options.model_version
    )


def _build_index(config: ServeConfig) -> None:
    from understudy.data.store import Store
    from understudy.update.search import build_indexes
    from understudy.update.serve_versions import open_newest

    gallery = open_newest(Store.open(config.store), config.new, config.mapped)
    built = build_indexes(gallery, metric=config.metric)
    note(f"indexed: {', '.join(built) or 'nothing (there is an index already)'}")


def _print_recall(service: Service) -> None:
    from understudy.update.serve_run import sampled_recall

    recall = sampled_recall(service.versions.current.gallery)
    note(f"recall@10 of the index against exact search, 32 of its rows as queries: {recall:.3f}")


def _print_ready(server: HttpServer, as_json: bool) -> None:
    state = server.service.state()
    if as_json:
        print(json.dumps({"url": server.url, **state}), flush=True)
        return
    print(
        f"serving {server.service.config.store} at {server.url}: version {state['version']}, "
        f"{state['rows']:,} rows ({state['encoded']:,} encoded, {state['mapped']:,} mapped, "
        f"{state['absent']:,} without a vector), searched from space {state['space']} by "
        f"{', '.join(state['queries'])} ({state['search']})",
        flush=True,
    )
