"""Files cut into units of work by their kind."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from understudy.core.errors import DataError
from understudy.core.hashing import hash_data
from understudy.curate.engine.inputs import InputFile, InputUnit, matches

GROUP_FILES = 4_096
"""Most single-page files of a unit."""


def cut(files: Sequence[InputFile], unit_bytes: int, patterns: Sequence[str]) -> list[InputUnit]:
    """Return the units of files, in order; see `find_inputs`."""
    units: list[InputUnit] = []
    group: list[InputFile] = []
    for file in files:
        if group and (file.kind, file.root) != (group[0].kind, group[0].root):
            units += _groups(group, unit_bytes, patterns)
            group = []
        if file.kind in ("html", "text"):
            group.append(file)
        else:
            units += _CUT.get(file.kind, _whole)(file, unit_bytes)
    return units + _groups(group, unit_bytes, patterns)


def _state(path: Path) -> tuple[int, str]:
    facts = path.stat()
    return facts.st_size, f"{facts.st_size}-{facts.st_mtime_ns}"


def _whole(file: InputFile, unit_bytes: int) -> list[InputUnit]:
    size, state = _state(file.path)
    return [
        InputUnit(
            key=file.key,
            source=file.key,
            kind=file.kind,
            path=str(file.path),
            bytes=size,
            state=state,
        )
    ]


def _range(file: InputFile, start: int, stop: int, size: int, state: str) -> InputUnit:
    return InputUnit(
        key=f"{file.key}[{start}:{stop}]",
        source=file.key,
        kind=file.kind,
        path=str(file.path),
        start=start,
        stop=stop,
        bytes=size,
        state=state,
    )


def _lines(file: InputFile, unit_bytes: int) -> list[InputUnit]:
    size, state = _state(file.path)
    with open(file.path, "rb") as stream:
        magic = stream.read(4)
    packed = magic[:2] == b"\x1f\x8b" or magic == b"\x28\xb5\x2f\xfd"
    if packed or size <= unit_bytes * 3 // 2:
        return _whole(file, unit_bytes)
    number = max(1, round(size / unit_bytes))
    cuts = [size * i // number for i in range(number + 1)]
    return [_range(file, a, b, b - a, state) for a, b in itertools.pairwise(cuts) if a < b]


def _parquet(file: InputFile, unit_bytes: int) -> list[InputUnit]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    _, state = _state(file.path)
    try:
        facts = pq.read_metadata(file.path)
    except (pa.ArrowException, OSError) as error:
        line = str(error).splitlines()[0]
        raise DataError(f"{file.path}: not a readable Parquet file ({line}).") from None
    sizes = [facts.row_group(i).total_byte_size for i in range(facts.num_row_groups)]
    units, start, held = [], 0, 0
    for number, size in enumerate(sizes):
        if number > start and held + size > unit_bytes:
            units.append(_range(file, start, number, held, state))
            start, held = number, 0
        held += size
    if not units:
        return _whole(file, unit_bytes)
    return [*units, _range(file, start, len(sizes), held, state)]


def _store(file: InputFile, unit_bytes: int) -> list[InputUnit]:
    from understudy.data.store import Store

    store = Store.open(file.path)
    if "text" not in store.columns:
        raise DataError(
            f"{file.path}: the store has no column 'text'; it has {', '.join(store.columns)}."
        )
    rows = store.num_rows
    # of rows spread over the store, as texts may be sorted
    sample = sorted({rows * i // 64 for i in range(64)}) if rows else []
    texts = store.take(sample, ["text"]).column("text").to_pylist() if sample else []
    mean = max(1.0, sum(len((t or "").encode()) for t in texts) / max(1, len(texts)))
    step = max(1, int(unit_bytes / mean))
    state = f"version {store.version} of {rows} rows, {_state(file.path / '_versions')[1]}"
    units = [
        _range(file, a, min(rows, a + step), int(mean * (min(rows, a + step) - a)), state)
        for a in range(0, rows, step)
    ]
    if len(units) == 1:
        return [InputUnit.from_plain({**units[0].to_plain(), "key": file.key})]
    return units


_CUT: Mapping[str, Callable[[InputFile, int], list[InputUnit]]] = {
    "lines": _lines,
    "parquet": _parquet,
    "store": _store,
}


def _groups(
    files: Sequence[InputFile], unit_bytes: int, patterns: Sequence[str]
) -> list[InputUnit]:
    """Return units of files that hold one page each."""
    units: list[InputUnit] = []
    held: list[InputFile] = []
    states: list[str] = []
    size = 0

    def flush() -> None:
        nonlocal held, states, size
        if held:
            more = f" and {len(held) - 1} more" if len(held) > 1 else ""
            units.append(
                InputUnit(
                    key=f"{held[0].key}{more}",
                    source=held[0].key,
                    kind=held[0].kind,
                    path=str(held[0].root),
                    files=tuple(file.key for file in held),
                    bytes=size,
                    state=hash_data(states),
                )
            )
        held, states, size = [], [], 0

    of: list[bool] = []
    for file in files:
        bytes_, state = _state(file.path)
        before, of = of, [matches(file.key, pattern) for pattern in patterns]
        if held and (size + bytes_ > unit_bytes or len(held) >= GROUP_FILES or of != before):
            flush()
        held.append(file)
        states.append(state)
        size += bytes_
    flush()
    return units
