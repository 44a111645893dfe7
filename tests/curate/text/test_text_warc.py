"""Web archives: both readers give the same records, and damage is named by its place."""

from __future__ import annotations

import gzip
import zlib

import pyarrow as pa
import pytest

from understudy.core.errors import DataError, MissingExtraError
from understudy.curate.text import warc_records
from understudy.curate.text.http import parse_response
from understudy.curate.text.warc import read_warc, read_wet


def readers():
    try:
        import fastwarc  # noqa: F401
    except ImportError:
        return ["plain"]
    return ["plain", "fastwarc"]


READERS = readers()


def record(kind: str, block: bytes, url: str = "http://a.example/", **more: str) -> bytes:
    headers = {
        "WARC-Type": kind,
        "WARC-Record-ID": f"<urn:uuid:{zlib.crc32(block):08x}>",
        "WARC-Date": "2024-05-01T00:00:00Z",
        "WARC-Target-URI": url,
        "Content-Type": "application/http; msgtype=response",
        **more,
        "Content-Length": str(len(block)),
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return b"WARC/1.0\r\n" + head.encode() + b"\r\n" + block + b"\r\n\r\n"


def http(body: bytes, status: int = 200, **headers: str) -> bytes:
    given = {"Content-Type": "text/html; charset=utf-8", **headers}
    lines = "".join(f"{k.replace('_', '-')}: {v}\r\n" for k, v in given.items())
    return f"HTTP/1.1 {status} OK\r\n{lines}\r\n".encode() + body


PAGE = "<html><body><p>caf\xe9</p></body></html>".encode()


def archive() -> list[bytes]:
    info = record("warcinfo", b"software: ours\r\n", **{"Content-Type": "application/warc-fields"})
    return [
        info,
        record("request", b"GET / HTTP/1.1\r\n\r\n"),
        record("response", http(PAGE), "http://a.example/1"),
        record("response", http(b"{}", Content_Type="application/json")),
        record("response", http(PAGE, 404)),
        record("response", http(b"")),
        record("response", http(PAGE * 500, Content_Type="application/xhtml+xml"), "http://b/2"),
        record("response", b"HTTP/1.1 200 OK\r\n\r\n<!DOCTYPE HTML><p>x", "http://c/3"),
        record("metadata", b"x: y\r\n"),
        record(
            "response", http(gzip.compress(PAGE, mtime=0), Content_Encoding="gzip"), "http://d/4"
        ),
    ]


def packed(parts: list[bytes], form: str) -> bytes:
    if form == "plain":
        return b"".join(parts)
    if form == "members":
        return b"".join(map(gzip.compress, parts))
    if form == "one member":
        return gzip.compress(b"".join(parts))
    return pa.Codec("zstd").compress(b"".join(parts), asbytes=True)


class Skipped:
    def __init__(self) -> None:
        self.found: list[tuple[str, str, str]] = []

    def bad(self, where: str, reason: str, detail: str) -> None:
        self.found.append((where, reason, detail))


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("form", ["plain", "members", "one member", "zstd"])
def test_pages_of_an_archive(tmp_path, reader, form):
    path = tmp_path / "a.warc"
    path.write_bytes(packed(archive(), form))
    pages = list(read_warc(path, reader=reader))
    assert [page.url for page in pages] == [
        "http://a.example/1",
        "http://b/2",
        "http://c/3",
        "http://d/4",
    ]
    assert [page.body for page in pages] == [PAGE, PAGE * 500, b"<!DOCTYPE HTML><p>x", PAGE]
    first = pages[0]
    assert first.headers == {"content-type": "text/html; charset=utf-8"}
    assert first.metadata["WARC-Date"] == "2024-05-01T00:00:00Z"
    assert first.metadata["WARC-Record-ID"].startswith("<urn:uuid:")
    assert first.metadata["WARC-Target-URI"] == "http://a.example/1"
    assert first.metadata["Content-Type"] == "application/http; msgtype=response"


@pytest.mark.skipif(len(READERS) < 2, reason="fastwarc is not installed")
@pytest.mark.parametrize("form", ["plain", "members", "one member"])
def test_both_readers_agree(tmp_path, form):
    path = tmp_path / "a.warc"
    path.write_bytes(packed(archive(), form))
    plain, fast = (
        [(r.headers, r.block) for r in read(path)]
        for read in (warc_records.plain_records, warc_records.fast_records)
    )
    assert plain == fast
    assert len(plain) == len(archive())
    if form == "members":
        places = [[r.offset for r in warc_records.plain_records(path)]]
        places += [[r.offset for r in warc_records.fast_records(path)]]
        assert places[0] == places[1]


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("form", ["plain", "members"])
@pytest.mark.parametrize("cut", [4, 60, 200])
def test_cut_off(tmp_path, reader, form, cut):
    parts = [record("response", http(bytes([65 + i]) * 900 + PAGE)) for i in range(3)]
    ends = [packed([part], form) for part in parts]
    data = b"".join(ends)
    # nothing but the separator behind the last record is lost by cutting 4 bytes of a plain file
    whole = form == "plain" and cut == 4
    path = tmp_path / "a.warc"
    path.write_bytes(data[: len(ends[0]) + len(ends[1])] + ends[2][: len(ends[2]) - cut])
    found: list = []
    if whole:
        assert len(list(read_warc(path, reader=reader))) == 3
        return
    with pytest.raises(DataError) as caught:
        found.extend(read_warc(path, reader=reader))
    place = len(ends[0]) + len(ends[1])
    # of a member that lacks only its checksum, the record is whole
    count = 3 if cut == 4 else 2
    assert f"byte {place:,}: damaged or cut off after {count} whole records" in str(caught.value)
    assert len(found) == count
    skipped = Skipped()
    assert len(list(read_warc(path, skipped, reader=reader))) == count
    [(where, reason, detail)] = skipped.found
    assert where == f"{path}, byte {place:,}"
    assert reason == "cut off"
    assert f"after {count} whole records" in detail


@pytest.mark.parametrize("reader", READERS)
def test_cut_in_the_header_of_a_member(tmp_path, reader):
    parts = [gzip.compress(part) for part in archive()]
    path = tmp_path / "a.warc.gz"
    path.write_bytes(b"".join(parts[:-1]) + parts[-1][:5])
    with pytest.raises(DataError, match=f"byte {sum(map(len, parts[:-1])):,}: damaged or cut off"):
        list(read_warc(path, reader=reader))


@pytest.mark.parametrize("reader", READERS)
def test_damaged_in_the_middle(tmp_path, reader):
    parts = [gzip.compress(record("response", http(PAGE + bytes([i]) * 99))) for i in range(4)]
    data = bytearray(b"".join(parts))
    data[len(parts[0]) + len(parts[1]) // 2] ^= 0xFF
    path = tmp_path / "a.warc.gz"
    path.write_bytes(data)
    with pytest.raises(
        DataError, match=f"byte {len(parts[0]):,}: damaged or cut off after 1 whole"
    ):
        list(read_warc(path, reader=reader))


@pytest.mark.parametrize("reader", READERS)
def test_something_else(tmp_path, reader):
    path = tmp_path / "a.warc"
    path.write_bytes(b"hello world, this is no archive")
    with pytest.raises(DataError, match="byte 0: .*expected 'WARC/'"):
        list(read_warc(path, reader=reader))
    path.write_bytes(b"WARC/1.0\r\nWARC-Type: response\r\n\r\nx")
    with pytest.raises(DataError):
        list(read_warc(path, reader="plain"))
    path.write_bytes(b"")
    assert list(read_warc(path, reader=reader)) == []
    with pytest.raises(DataError, match="nowhere.warc: cannot be read"):
        list(read_warc(tmp_path / "nowhere.warc", reader=reader))


@pytest.mark.parametrize("reader", READERS)
def test_huge_records_are_passed_over(tmp_path, reader, monkeypatch):
    monkeypatch.setattr(warc_records, "MAX_RECORD", 2_000)
    parts = [record("response", http(PAGE * n), f"http://{n}/") for n in (1, 90, 2)]
    path = tmp_path / "a.warc.gz"
    path.write_bytes(packed(parts, "members"))
    assert [page.url for page in read_warc(path, reader=reader)] == ["http://1/", "http://2/"]


@pytest.mark.parametrize("reader", READERS)
def test_wet(tmp_path, reader):
    parts = [
        record("warcinfo", b"x: y"),
        record(
            "conversion", "one caf\xe9\n".encode(), "http://1/", **{"Content-Type": "text/plain"}
        ),
        record("conversion", b" \n", "http://2/"),
        record("conversion", b"three\n\nlines", "http://3/"),
    ]
    path = tmp_path / "a.warc.wet.gz"
    path.write_bytes(packed(parts, "members"))
    pages = list(read_wet(path, reader=reader))
    assert [(page.url, page.body.decode()) for page in pages] == [
        ("http://1/", "one caf\xe9\n"),
        ("http://3/", "three\n\nlines"),
    ]
    assert pages[0].headers == {}


def test_fastwarc_can_be_missing(tmp_path, monkeypatch):
    import importlib

    real = importlib.import_module

    def fail(name, *args):
        if name.startswith("fastwarc"):
            raise ModuleNotFoundError("No module named 'fastwarc'", name="fastwarc")
        return real(name, *args)

    path = tmp_path / "a.warc"
    path.write_bytes(packed(archive(), "plain"))
    monkeypatch.setattr("understudy.core.lazy.importlib.import_module", fail)
    monkeypatch.setattr("understudy.curate.text.warc.installed", lambda name: False)
    assert len(list(read_warc(path))) == 4
    with pytest.raises(MissingExtraError, match=r'pip install "understudy\[curate\]"'):
        list(read_warc(path, reader="fastwarc"))


def chunked(body: bytes, size: int) -> bytes:
    parts = [body[i : i + size] for i in range(0, len(body), size)]
    return b"".join(b"%x;x=y\r\n%s\r\n" % (len(p), p) for p in parts) + b"0\r\n\r\n"


def raw_deflate(body: bytes) -> bytes:
    pack = zlib.compressobj(wbits=-15)
    return pack.compress(body) + pack.flush()


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ({}, PAGE),
        ({"Transfer_Encoding": "chunked"}, chunked(PAGE, 7)),
        ({"Content_Encoding": "gzip"}, gzip.compress(PAGE, mtime=0)),
        ({"Content_Encoding": "deflate"}, zlib.compress(PAGE)),
        ({"Content_Encoding": "deflate"}, raw_deflate(PAGE)),
        (
            {"Transfer_Encoding": "chunked", "Content_Encoding": "gzip"},
            chunked(gzip.compress(PAGE, mtime=0), 9),
        ),
        # headers that were kept though the body was decoded
        ({"Transfer_Encoding": "chunked", "Content_Encoding": "gzip"}, PAGE),
        ({"Content_Encoding": "nonsense"}, PAGE),
        ({"Content_Encoding": "identity"}, PAGE),
    ],
)
def test_bodies_are_decoded(headers, body):
    found = parse_response(http(body, **headers))
    assert (found.status, found.body) == (200, PAGE)


def test_brotli_bodies():
    brotli = pytest.importorskip("brotli")
    assert parse_response(http(brotli.compress(PAGE), Content_Encoding="br")).body == PAGE


def test_odd_responses():
    found = parse_response(b"HTTP/1.0 301 Moved\nLocation: /x\n folded\nX-A: 1\nX-A: 2\n\nbody")
    assert found.status == 301
    assert found.headers == {"location": "/x folded", "x-a": "2"}
    assert found.body == b"body"
    assert parse_response(b"").status == 0
    assert (
        parse_response(http(gzip.compress(PAGE, mtime=0)[:-9], Content_Encoding="gzip")).body
        != PAGE
    )
