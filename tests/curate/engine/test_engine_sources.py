"""Readers: every form of input, and every way in which it can be broken."""

from __future__ import annotations

import gzip
import json

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from understudy.core.errors import DataError
from understudy.curate.engine.inputs import find_inputs
from understudy.curate.text import sources_lines
from understudy.curate.text.sources import read_input, whole_text
from understudy.curate.text.sources_bad import Skipped
from understudy.curate.text.sources_html import decode


def read(*inputs, strict=True, unit_bytes=1 << 26):
    skipped, pages = Skipped(strict), []
    for unit in find_inputs(inputs, unit_bytes=unit_bytes).units:
        pages += read_input(unit, skipped)
    return pages, skipped


def lines(path, records):
    path.write_text("".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in records))
    return path


def test_a_record_keeps_what_it_brings(tmp_path):
    path = lines(
        tmp_path / "a.jsonl",
        [
            {
                "text": "one",
                "url": "http://x/",
                "metadata": {"WARC-Date": "2020", "lang": "en"},
                "warcinfo": "robot: x",
                "lang": {"en": 0.9},
                "nothing": None,
            },
            {"text": "two", "metadata": {"WARC-Target-URI": "http://y/"}},
            {"text": "three", "id": 7, "source": "books", "metadata": "plain"},
            {"text": "half \ud83d of a pair"},
        ],
    )
    (one, two, three, four), skipped = read(path)
    assert one.facts() == {
        "WARC-Date": "2020",
        "lang": "en",
        "warcinfo": "robot: x",
        "record.lang": {"en": 0.9},
    }
    assert (one.url, two.url, three.url) == ("http://x/", "http://y/", None)
    assert (three.id, three.source, three.facts()) == ("7", "books", {"metadata": "plain"})
    assert one.source == "a.jsonl"
    assert four.text == "half \ufffd of a pair"
    assert (skipped.read, skipped.given_ids) == (4, 1)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.text(st.characters(codec="utf-8"), max_size=30), max_size=40),
    st.integers(1, 400),
    st.booleans(),
)
def test_ranges_of_a_file_hold_each_line_once(tmp_path_factory, texts, unit_bytes, blank):
    folder = tmp_path_factory.mktemp("ranges")
    rows = [{"text": t} for t in texts]
    path = lines(folder / "a.jsonl", [x for r in rows for x in ([r, ""] if blank else [r])])
    if not path.stat().st_size:
        return
    whole, _ = read(path)
    parts, _ = read(path, unit_bytes=unit_bytes)
    assert [p.text for p in whole] == texts
    assert [(p.id, p.text) for p in parts] == [(p.id, p.text) for p in whole]
    assert len({p.id for p in whole}) == len(texts)


@pytest.mark.parametrize("ending", [".gz", ".zst"])
def test_packed_lines_read_like_plain_ones(tmp_path, ending):
    rows = [{"text": f"page {i}"} for i in range(300)]
    plain = lines(tmp_path / "a.jsonl", rows).read_bytes()
    (tmp_path / "b").mkdir()
    path = tmp_path / "b" / f"a.jsonl{ending}"
    if ending == ".gz":  # two members, as concatenated files have
        path.write_bytes(gzip.compress(plain[:1000]) + gzip.compress(plain[1000:]))
    else:
        with pa.CompressedOutputStream(str(path), "zstd") as file:
            file.write(plain)
    pages, _ = read(path)
    assert [p.text for p in pages] == [r["text"] for r in rows]


BAD = [
    ("not json", "not JSON", "line 2: not JSON"),
    ("[1, 2]", "no object", "line 2: expected a JSON object, got b'\\[1, 2\\]"),
    ('{"url": "u", "body": "b"}', "no text", "line 2: no field 'text'.*fields: url, body"),
    ('{"text": 5}', "no text", "line 2: 'text' is int; expected a string"),
    ('{"text": null}', "no text", "line 2: no field 'text'"),
    ('{"text": ' + "[" * 100_000, "not JSON", "line 2: not JSON"),
]


@pytest.mark.parametrize(("bad", "reason", "message"), BAD)
def test_bad_lines_stop_or_are_counted(tmp_path, bad, reason, message):
    path = lines(tmp_path / "a.jsonl", [{"text": "one"}, bad, {"text": "three"}])
    with pytest.raises(DataError, match=f"a.jsonl, {message}.*1 were read.*--lenient"):
        read(path)
    pages, skipped = read(path, strict=False)
    assert [p.text for p in pages] == ["one", "three"]
    assert dict(skipped.reasons) == {reason: 1}
    assert "line 2" in skipped.examples[0]


def test_bytes_that_are_no_utf8_are_named(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"text": "ok"}\n{"text": "caf\xe9"}\n')
    with pytest.raises(DataError, match="line 2: not UTF-8 at byte 13"):
        read(path)


def test_lines_beyond_the_limit_are_passed_over(tmp_path, monkeypatch):
    monkeypatch.setattr(sources_lines, "MAX_LINE", 50)
    path = lines(tmp_path / "a.jsonl", [{"text": "a"}, {"text": "b" * 200}, {"text": "c"}])
    pages, skipped = read(path, strict=False)
    assert [p.text for p in pages] == ["a", "c"]
    assert dict(skipped.reasons) == {"too long": 1}
    with pytest.raises(DataError, match="line 2: the line is longer than 50 bytes"):
        read(path)
    # the offsets that ids are made from go on behind it
    assert pages[1].id == read(path, strict=False, unit_bytes=1 << 20)[0][1].id


def test_in_a_range_the_byte_is_named(tmp_path):
    rows = [{"text": "x" * 50} for _ in range(20)]
    text = [json.dumps(r) for r in rows]
    text[15] = "no json at all"
    path = lines(tmp_path / "a.jsonl", text)
    start = sum(len(t) + 1 for t in text[:15])
    with pytest.raises(DataError, match=f"a.jsonl, byte {start}: not JSON"):
        read(path, unit_bytes=300)


@pytest.mark.parametrize("ending", [".gz", ".zst"])
def test_files_that_are_cut_off_say_where(tmp_path, ending):
    import random

    draw = random.Random(0)
    rows = [{"text": "".join(chr(draw.randrange(97, 123)) for _ in range(80))} for _ in range(4000)]
    data = "".join(json.dumps(r) + "\n" for r in rows).encode()
    path = tmp_path / f"a.jsonl{ending}"
    if ending == ".gz":
        path.write_bytes(gzip.compress(data))
    else:
        with pa.CompressedOutputStream(str(path), "zstd") as file:
            file.write(data)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(DataError, match=r"byte [\d,]+ unpacked \(after line [\d,]+\): damaged or"):
        read(path)
    pages, skipped = read(path, strict=False)
    assert dict(skipped.reasons) == {"cut off": 1}
    assert [p.text for p in pages] == [r["text"] for r in rows[: len(pages)]]
    assert 1000 < len(pages) < 3000


def test_html_folders_are_grouped_and_keep_their_names(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "b.html").write_text("<p>b")
    (tmp_path / "a.htm").write_text("<p>a")
    (tmp_path / "c.html.gz").write_bytes(gzip.compress(b"<p>c"))
    (tmp_path / "readme.txt").write_text("plain")
    (tmp_path / "pixel.png").write_bytes(b"x")
    (tmp_path / ".hidden.html").write_text("no")
    found = find_inputs([tmp_path])
    assert [(u.kind, u.files) for u in found.units] == [
        ("html", ("a.htm", "c.html.gz", "sub/b.html")),
        ("text", ("readme.txt",)),
    ]
    assert found.ignored == {".png": 1}
    pages, _ = read(tmp_path)
    assert [(p.text, p.source) for p in pages] == [
        ("<p>a", "a.htm"),
        ("<p>c", "c.html.gz"),
        ("<p>b", "sub/b.html"),
        ("plain", "readme.txt"),
    ]
    assert [p.facts().get("Content-Type") for p in pages] == ["text/html"] * 3 + [None]
    assert [p.facts().get("form") for p in pages] == ["markup"] * 3 + [None]


@pytest.mark.parametrize(
    ("data", "header", "text"),
    [
        ("é".encode(), "", "é"),
        (b"\xe9", "", "é"),
        (b"\xe9", "text/html; charset=ISO-8859-1", "é"),
        (b"\x93", 'text/html; charset="latin1"', "\u201c"),
        (b'<meta charset="cp1251">\xe9', "", '<meta charset="cp1251">й'),
        ("\ufeffé".encode(), "charset=cp1251", "é"),
        ("é".encode("utf-16"), "", "é"),
        (b"a", "charset=hex", "a"),
        (b"a", "charset=no-such", "a"),
        (b"a", "charset=idna", "a"),
        (b"\xff", "charset=utf-8", "\ufffd"),
    ],
)
def test_encodings_of_pages(data, header, text):
    assert decode(data, header) == text


@given(st.binary(max_size=60), st.sampled_from(["", "charset=utf-7", "charset=rot13", "charset=a"]))
def test_decode_takes_any_bytes(data, header):
    text = whole_text(decode(data, header))
    assert text.encode().decode() == text  # no half characters are left


@given(st.text())
def test_whole_text_changes_broken_text_only(text):
    fixed = whole_text(text)
    fixed.encode()
    assert fixed == text or any(0xD800 <= ord(c) < 0xE000 for c in text)


def warc(url, kind, body, http=b""):
    block = http + body
    head = f"WARC/1.0\r\nWARC-Type: {kind}\r\nWARC-Target-URI: {url}\r\n"
    head += f"WARC-Record-ID: <urn:uuid:{url}>\r\nContent-Type: application/http\r\n"
    return f"{head}Content-Length: {len(block)}\r\n\r\n".encode() + block + b"\r\n\r\n"


def test_archives_become_pages_with_their_headers(tmp_path):
    http = b"HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=latin1\r\n\r\n"
    records = [warc(f"http://a/{i}", "response", b"<p>\xe9" + b"x" * i, http) for i in range(3)]
    path = tmp_path / "a.warc.gz"
    path.write_bytes(b"".join(gzip.compress(r) for r in records))
    text = warc("http://b/", "conversion", "é".encode())
    (tmp_path / "b.warc.wet.gz").write_bytes(gzip.compress(text))
    pages, _ = read(tmp_path)
    assert [p.text for p in pages] == ["<p>é", "<p>éx", "<p>éxx", "é"]
    assert [p.url for p in pages] == ["http://a/0", "http://a/1", "http://a/2", "http://b/"]
    assert [p.source for p in pages] == ["a.warc.gz"] * 3 + ["b.warc.wet.gz"]
    assert pages[0].facts()["Content-Type"] == "text/html"
    assert pages[0].facts()["form"] == "markup"
    assert pages[1].facts()["WARC-Record-ID"] == "<urn:uuid:http://a/1>"
    assert pages[3].facts().get("Content-Type") != "text/html"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"a.warc.gz, byte [\d,]+: damaged or cut off.*--lenient"):
        read(path)
    pages, skipped = read(path, strict=False)
    assert [p.text for p in pages] == ["<p>é", "<p>éx"]
    assert dict(skipped.reasons) == {"cut off": 1}
