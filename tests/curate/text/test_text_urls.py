"""Address filters and the removal of addresses from text."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from understudy.core.errors import ConfigError, DataError
from understudy.curate.engine.pages import Page
from understudy.curate.text.edits import Newlines
from understudy.curate.text.urls import UrlDomainBan, UrlRemoval, UrlWordBan, host_of
from understudy.curate.text.wordlists import any_of


def page(url: str | None, text: str = "x") -> Page:
    return Page(id="a", text=text, url=url)


@pytest.fixture
def lists(tmp_path):
    files = {
        "domains": "# ours\nwww.Bad.org\n\nsub.worse.net\n",
        "strict": "freestuff\nno-good\n",
        "hard": "poker\nx rated\nhot-deal\n",
        "soft": "dating\nwebcam\ntop-10\n",
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    return {name: str(tmp_path / name) for name in files}


@pytest.mark.parametrize(
    ("url", "kept"),
    [
        ("http://bad.org/page", False),
        ("https://WWW.BAD.org:8080/page?q=1", False),
        ("http://user@bad.org", False),
        ("bad.org/page", False),
        ("http://other.bad.org", True),  # hosts are compared whole
        ("http://worse.net", True),
        ("http://sub.worse.net", False),
        ("http://notbad.org", True),
        ("http://good.org/bad.org", True),
        (None, True),
        ("", True),
        ("http://[broken", True),
    ],
)
def test_domains(lists, url, kept):
    stage = UrlDomainBan(path=lists["domains"])
    assert stage.keep(page(url)) == (kept or "banned domain")


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://a.org/free-st.uff", "strict word"),
        ("http://a.org/xfreestuffx", "strict word"),
        ("http://a.org/nogood", "strict word"),
        ("http://a.org/POKER/1", "hard word"),
        ("http://poker.org", "hard word"),
        ("http://a.org/hot-deal", "hard word"),
        ("http://a.org/hot-deals", True),
        ("http://a.org/pokers_poker", True),  # "_" belongs to a word
        ("http://a.org/dating", True),
        ("http://a.org/dating/dating", True),  # one word twice is one hit
        ("http://a.org/dating/webcam", "soft words"),
        ("http://a.org/dating/top-10", "soft words"),
        (None, True),
    ],
)
def test_words(lists, url, expected):
    stage = UrlWordBan(strict=lists["strict"], hard=lists["hard"], soft=lists["soft"])
    assert stage.keep(page(url)) == expected


def test_soft_hits_and_identity(lists, tmp_path):
    stage = UrlWordBan(soft=lists["soft"], soft_hits=3)
    assert stage.keep(page("http://a.org/dating/webcam")) is True
    assert stage.keep(page("http://a.org/dating/webcam/top-10")) == "soft words"
    before = UrlDomainBan(path=lists["domains"]).describe()
    (tmp_path / "domains").write_text("sub.worse.net\nbad.org\n")
    assert UrlDomainBan(path=lists["domains"]).describe() == before
    (tmp_path / "domains").write_text("other.org\n")
    assert UrlDomainBan(path=lists["domains"]).describe() != before


def test_example_lists_are_there():
    assert UrlDomainBan().keep(page("http://www.spam.example/x")) == "banned domain"
    assert UrlWordBan().keep(page("http://a.org/casino")) == "hard word"
    assert UrlWordBan().keep(page("http://docs.example.org/library")) is True


def test_bad_lists(tmp_path):
    with pytest.raises(DataError, match="missing.txt: the list that url-domain-ban needs cannot"):
        UrlDomainBan(path=str(tmp_path / "missing.txt"))
    (tmp_path / "empty.txt").write_text("# nothing\n")
    with pytest.raises(DataError, match="the list that url-word-ban \\(hard\\) needs has no entry"):
        UrlWordBan(hard=str(tmp_path / "empty.txt"))
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9\n")
    with pytest.raises(DataError, match="needs a list in UTF-8 \\(byte 3\\)"):
        UrlDomainBan(path=str(tmp_path / "latin.txt"))
    (tmp_path / "marks.txt").write_text("-.\n")
    with pytest.raises(ConfigError, match="an entry has nothing but"):
        UrlWordBan(strict=str(tmp_path / "marks.txt"))
    with pytest.raises(ConfigError, match="soft_hits must be at least 1"):
        UrlWordBan(soft_hits=0)


def test_hosts():
    assert host_of("http://www.Example.org.:80/a") == "example.org"
    assert host_of("http://wwwexample.org") == "wwwexample.org"


@given(
    st.lists(st.text("ab-.", min_size=1, max_size=4), min_size=1, max_size=8),
    st.text("ab-.", max_size=12),
)
@settings(max_examples=300)
def test_shared_beginnings_match_as_alternatives_do(words, text):
    longest_first = sorted(set(words), key=lambda w: (-len(w), w))
    expected = re.findall("|".join(map(re.escape, longest_first)), text)
    assert re.findall(any_of(words), text) == expected


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("see http://a.example/x?q=1#y now", "see now"),
        ("see https://a.example/x.", "see."),
        ("(ftp://a.example/x) end", "() end"),
        ("see  \n www.a.example/b, then", "see, then"),
        ("at example.com/path here", "at here"),
        ("EXAMPLE.ORG is", " is"),
        ("mail me@example.org!", "mail!"),
        ("host 192.168.0.1:80/x up", "host up"),
        ("version 1.2.3.4.5 stays", "version 1.2.3.4.5 stays"),
        ("300.1.1.1 stays", "300.1.1.1 stays"),
        ("os.name, done.It and 3.14 stay", "os.name, done.It and 3.14 stay"),
        ("tab\thttp://a.example/x\tb", "tab\tb"),
        ("nothing here", "nothing here"),
        ("x" + " " * 12 + "http://a.example", "x  "),
        ("a http://a.example b www.b.example c", "a b c"),
        ("caf\xe9 http://a.example/\xe9 ok", "caf\xe9 ok"),
    ],
)
def test_addresses_are_deleted(text, left):
    item = page(None, text)
    assert UrlRemoval().pages(item) == [item]
    assert item.text == left


def test_a_page_of_addresses_is_dropped():
    stage = UrlRemoval()
    assert stage.pages(page(None, " http://a.example\nwww.b.example ")) == []
    assert stage.reason() == "nothing but addresses"
    with pytest.raises(ConfigError, match="top_domains must be names such as 'org'"):
        UrlRemoval(top_domains=(".com",))


@given(st.lists(st.sampled_from(["a", " ", "\n", "http://x.org/y", "b.com", ".", "1.2.3.4", "-"])))
@settings(max_examples=200)
def test_removal_leaves_no_address_and_only_deletes(parts):
    text = "".join(parts)
    item = page(None, text)
    if not UrlRemoval().pages(item):
        return
    rest = iter(text)
    assert all(char in rest for char in item.text)
    assert "http://x.org" not in item.text


@pytest.mark.parametrize(
    ("text", "left"),
    [("a\nb", "a\nb"), ("a\n\nb", "a\n\nb"), ("a\n\n\nb\n\n\n\n", "a\n\nb\n\n"), ("", "")],
)
def test_newlines(text, left):
    item = page(None, text)
    assert Newlines().pages(item) == [item]
    assert item.text == left
    assert Newlines(max_newlines=1).pages(page(None, "a\n\nb"))[0].text == "a\nb"
    assert Newlines().describe() == {"name": "newlines", "max_newlines": 2}
