"""LLaVA's conversation JSON to a store: one row a conversation, with its image.

The file is a list of `{"id", "image", "conversations": [{"from": "human" | "gpt", "value"}]}`, with
`<image>` in the human's text where the image stands (arXiv 2304.08485). It is read piece by piece;
files of JSON lines work too. A conversation without an image has an empty `image`.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from understudy.core.dialogue import MARK, check_turns, count_marks
from understudy.core.errors import DataError
from understudy.core.progress import bar
from understudy.data.importers.common import (
    BATCH_ROWS,
    Late,
    Pool,
    Skips,
    Unusable,
    check_image,
    check_mode,
    import_facts,
    write_store,
)
from understudy.data.importers.ids import SeenIds
from understudy.data.importers.jsonl import SUFFIXES, read_lines
from understudy.data.importers.streams import find_files, inside, open_stream

if TYPE_CHECKING:
    from understudy.data.store import Store

_PIECE = 1 << 20
_LONGEST = 1 << 26
_GAPS = " \t\r\n"


def read_list(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (number from 0, object) of a JSON list, without reading all of it at once.

    Raises:
        DataError: not a list of objects, an entry that does not parse, or a file that is cut off.
    """
    decoder = json.JSONDecoder()
    text, number, opened = "", 0, False
    with open_stream(path) as stream:
        ended = False
        while True:
            text = text.lstrip(_GAPS + ("," if opened and number else ""))
            if not opened and text:
                if text[0] != "[":
                    raise DataError(
                        f"{path}: expected a JSON list of conversations, it begins with "
                        f"{text[:20]!r}."
                    )
                text, opened = text[1:], True
                continue
            if opened and text.startswith("]"):
                return
            try:
                found, end = decoder.raw_decode(text) if text else (None, -1)
            except (json.JSONDecodeError, RecursionError) as error:
                if ended or len(text) > _LONGEST:
                    raise DataError(
                        f"{path}, entry {number}: not valid JSON ({error}); the file is damaged or "
                        "cut off."
                    ) from None
                end = -1
            if end < 0:
                if ended:
                    raise DataError(f"{path}: cut off after entry {number - 1}.")
                piece = _decode(stream.read(_PIECE), stream, path)
                ended = not piece
                text += piece
                continue
            if not isinstance(found, dict):
                raise DataError(f"{path}, entry {number}: expected an object, got {found!r:.40}.")
            yield number, found
            text, number = text[end:], number + 1


def _decode(piece: bytes, stream: Any, path: Path) -> str:
    # a piece may end inside a character: read on to its end
    for _ in range(4):
        try:
            return piece.decode("utf-8")
        except UnicodeDecodeError as error:
            more = (
                stream.read(1) if error.end == len(piece) or error.start > len(piece) - 4 else b""
            )
            if not more:
                raise DataError(f"{path}: not UTF-8 text ({error}).") from None
            piece += more
    raise DataError(f"{path}: not UTF-8 text.")


def _entries(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    if path.name.endswith(SUFFIXES):
        for number, entry in read_lines(path):
            yield f"{path}, line {number}", entry
    else:
        for number, entry in read_list(path):
            yield f"{path}, entry {number}", entry


def _row(entry: dict[str, Any], where: str, root: Path, check: str) -> dict[str, Any] | Unusable:
    uid = entry.get("id")
    if not isinstance(uid, str | int) or uid == "":
        raise DataError(f"{where}: no id; every conversation needs one.")
    turns = check_turns(entry.get("conversations"), f"{where}, '{uid}'")
    named = entry.get("image")
    if isinstance(named, list):
        named = named[0] if len(named) == 1 else named
    if isinstance(named, list):
        raise DataError(f"{where}, '{uid}': {len(named)} images; a row of a store holds one image.")
    marks, given = count_marks(turns), int(bool(named))
    if marks != given:
        raise DataError(
            f"{where}, '{uid}': the text has {marks} {MARK} marks for {given} images; give one "
            "mark an image."
        )
    data = b""
    if named:
        try:
            data = _image(named, where, root, check)
        except Unusable as error:
            return error
    return {"id": str(uid), "image": data, "conversations": json.dumps(turns, ensure_ascii=False)}


def _image(named: Any, where: str, root: Path, check: str) -> bytes:
    if not isinstance(named, str):
        raise DataError(f"{where}: the image is {named!r:.40}, expected a path.")
    file = inside(root, named, where)
    if not file.is_file():
        raise Unusable("missing image", f"{where}: no image file '{named}' below {root}.")
    data = file.read_bytes()
    check_image(data, f"{where}, {named}", check)
    return data


def import_conversations(
    source: str | Path,
    store: str | Path,
    *,
    images: str = "",
    split: str | None = None,
    on_missing: str | None = None,
    check_images: str = "decode",
    threads: int = 2,
    overwrite: bool = False,
    rows_per_fragment: int | None = None,
    storage_options: dict[str, str] | None = None,
) -> Store:
    """Make a store of conversations about images.

    Columns: `id`, `image` (encoded bytes, empty where there is none), `conversations` (JSON of the
    turns) and `split`.

    Args:
        source: a `.json` file, a file of JSON lines, or a folder of either.
        store: where the store is written.
        images: folder that the images' paths start from; the source's own by default.
        split: written into every row's `split`; `train` by default.
        on_missing: `error` or `skip` for missing and damaged images.
        check_images: `decode` every image, read its `header`, or `none`.
        threads: threads that read and decode images.
        overwrite: replace a store that is there.
        rows_per_fragment: rows that the store keeps together.
        storage_options: for object stores.

    Raises:
        DataError: an entry that does not parse or fit (file and entry are named): no id, an id that
            comes again, roles that do not alternate, another number of marks than images.
    """
    source = Path(source)
    check_mode(check_images)
    files = find_files(source, (".json", *SUFFIXES), "conversations (.json, .jsonl)")
    root = Path(images) if images else (source if source.is_dir() else source.parent)
    skips, seen = Skips(on_missing or "error"), SeenIds()
    schema = pa.schema(
        [("id", pa.string()), ("image", pa.binary()), ("conversations", pa.string()),
         ("split", pa.string())]
    )  # fmt: skip

    def batches(pool: Pool, progress: Any) -> Iterator[pa.RecordBatch]:
        written = 0
        for path in files:
            entries = _entries(path)
            while group := list(itertools.islice(entries, BATCH_ROWS)):
                made = list(pool.map(lambda e: _row(e[1], e[0], root, check_images), group))
                rows = [row for row in made if not isinstance(row, Unusable)]
                for row in made:
                    if isinstance(row, Unusable):
                        skips.add(row)
                seen.add([row["id"] for row in rows], [str(path)] * len(rows))
                if rows:
                    written += len(rows)
                    yield pa.RecordBatch.from_pylist(
                        [{**row, "split": split or "train"} for row in rows], schema
                    )
            progress.advance(path.stat().st_size / 1e6)
        if not written:
            raise DataError(f"{source}: no conversation that can be used.")

    total = sum(path.stat().st_size for path in files) / 1e6
    with bar("import", total, "MB") as progress, Pool(threads) as pool:
        return write_store(
            store,
            batches(pool, progress),
            schema,
            late=lambda: Late({"import": import_facts("conversations", source, skips)}),
            overwrite=overwrite,
            rows_per_fragment=rows_per_fragment,
            storage_options=storage_options,
        )
