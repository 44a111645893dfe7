"""What a machine has on disk: sources, docstrings, READMEs, manual pages, changelogs, dumps."""

import ast
import gzip
import sys
from pathlib import Path

import corpora_world
import pytest

from understudy.core.errors import ConfigError
from understudy.data.corpora import dumps, installed, logs, python_files, system
from understudy.data.corpora.checks import reasons, survey


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return corpora_world.build(tmp_path_factory.mktemp("world"), packages=4, modules=5, pages=8)


@pytest.fixture
def world(root, monkeypatch):
    corpora_world.enter(root, monkeypatch.setattr)
    return root


def test_real_standard_library_has_docstrings_and_is_not_imported():
    before = set(sys.modules)
    root = python_files.stdlib_folder()
    path = root / "email" / "policy.py"
    document = python_files.docstring_document(path, path.relative_to(root), "stdlib/email")
    assert document is not None
    assert document.facts["module"] == "email.policy"
    assert reasons(document.text) == []
    assert "email.policy" in before or "email.policy" not in sys.modules


def test_sources_are_in_order_with_groups_and_without_tests(world):
    found = list(python_files.stdlib_sources())
    assert [d.id for d in found] == [f"lib{i:02d}.py" for i in range(5)]
    assert {d.group for d in found} == {f"stdlib/lib{i:02d}" for i in range(5)}
    (world / "lib" / "test").mkdir(exist_ok=True)
    (world / "lib" / "test" / "more.py").write_text("x = 1\n")
    assert len(list(python_files.stdlib_sources())) == 5
    assert [d.id for d in python_files.stdlib_sources(tests=True)][-1] == "test/more.py"


def test_module_docstrings_come_in_source_order_and_broken_files_have_none():
    text = 'def a():\n    """A."""\nclass B:\n    """B.\n\n    base\n      more\n    """\n'
    text += '    def c(self):\n        "C."\n'
    assert python_files.module_docstrings(text) == ["A.", "B.\n\nbase\n  more", "C."]
    assert python_files.module_docstrings("def (") == []
    assert python_files.module_docstrings("print 'two'") == []
    assert python_files.module_docstrings("(" * 500 + ")" * 500) == []


def test_docstrings_by_package(world):
    found = list(python_files.docstrings(["pack01"]))
    assert [d.id for d in found] == [f"docstrings/pack01/pack01.mod_{i}" for i in range(3)]
    assert all(d.group == "pack01" and len(d.text.split()) >= 50 for d in found)
    both = list(python_files.docstrings(["Pack_01".replace("_", ""), "stdlib"]))
    assert [d.group for d in both] == [f"stdlib/lib{i:02d}" for i in range(5)] + ["pack01"] * 3
    assert len(list(python_files.docstrings())) == 5 + 4 * 3
    with pytest.raises(ConfigError, match="package 'pack9' isn't installed. Did you mean pack"):
        list(python_files.docstrings(["pack9"]))


def test_readmes_and_licences(world):
    found = list(installed.readmes())
    assert [d.group for d in found] == [f"pack{i:02d}" for i in range(4)]
    assert found[1].text.startswith("pack01\n\n")
    assert "pip install" not in found[1].text
    assert found[1].facts == {"version": "1.1"}
    assert [d.id for d in installed.licences(["pack02"])] == [
        "licence/pack02/pack02-1.2.dist-info/LICENSE"
    ]


def test_readme_in_an_old_header():
    raw = (
        "Name: old\nVersion: 1\nDescription: "
        + "First line of words\n        "
        + "goes on with more words and more of them until there are twenty words in all, so that "
        "it counts\n"
    )
    document = installed.readme_text("old", raw)
    assert document is not None
    assert document.text.startswith("First line of words goes on")
    assert installed.readme_text("none", "Name: none\n") is None


def test_man_pages_by_language_and_family(world):
    english = list(system.man_pages(folder=world / "man"))
    assert [d.id for d in english] == [f"man/en/man1/tool0{i}" for i in (1, 2, 3, 5, 6, 7)]
    german = list(system.man_pages("de", folder=world / "man"))
    assert [d.facts["language"] for d in german] == ["de", "de"]
    assert len(list(system.man_pages(None, folder=world / "man"))) == 8


def test_absence_is_said(tmp_path, world):
    assert system.absence(world / "man", "man") == ""
    assert system.absence(world / "doc", "changelog") == ""
    said = system.absence(tmp_path / "nothing", "man")
    assert "there are no manual pages under" in said
    assert "other kinds take their share" in said
    assert list(system.man_pages(folder=tmp_path / "nothing")) == []
    assert list(system.changelogs(tmp_path / "nothing")) == []


def test_changelogs_once_each_in_utc_order_without_names(tmp_path):
    text = (
        "tool (2.0-1) unstable; urgency=low\n\n  [ A. Person ]\n  * Second.\n\n"
        " -- A. Person <a@b.example>  Tue, 03 Jan 2006 00:30:00 +0200\n\n"
        "tool (1.0-1) unstable; urgency=low\n\n  * First.\n\n"
        " -- A. Person <a@b.example>  Mon,  2 Jan 2006 22:00:00 +0000\n\n"
        "tool (0.9-1) unstable; urgency=low\n\n  * No date.\n\n"
        " -- A. Person <a@b.example>  sometime\n"
    )
    for name in ("tool", "libtool-data"):  # binary packages of one source
        (tmp_path / name).mkdir()
        (tmp_path / name / "changelog.Debian.gz").write_bytes(gzip.compress(text.encode("latin-1")))
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "changelog.gz").write_bytes(gzip.compress(text.encode())[:40])
    found = list(system.changelogs(tmp_path))
    assert [(d.facts["version"], d.time, d.text) for d in found] == [
        ("1.0-1", "2006-01-02T22:00:00+00:00", "  * First."),
        ("2.0-1", "2006-01-02T22:30:00+00:00", "  * Second."),
    ]
    assert {d.group for d in found} == {"tool"}


def test_minified_python_means_the_same():
    source = Path(ast.__file__).read_text()
    small = dumps.minify_python(source)
    assert len(small) < 0.7 * len(source)
    assert "\n\n" not in small
    space: dict[str, object] = {"__name__": "small"}
    code = (
        'def f(a: int, *, b=2) -> int:\n    """Doc."""\n    c = a + b  # why\n    d = -c\n'
        '    return c * d if a else {"k: = ": c}\n'
    )
    exec(compile(dumps.minify_python(code), "small", "exec"), space)
    assert space["f"](3) == -25  # type: ignore[operator]
    assert space["f"](0) == {"k: = ": 2}  # type: ignore[operator]
    compile(small, "ast", "exec")
    assert dumps.minify_python("def (") == ""


def test_paths_of_dumps(world):
    found = [(inner, group) for _, inner, group in dumps.package_paths(["pack03"])]
    assert ("pack03/data.json", "pack03") in found
    assert ("pack03/app.min.js", "pack03") in found
    assert dumps.is_minified(Path("a/app.min.js"))
    assert not dumps.is_dump(Path("a/app.min.js"))
    assert dumps.is_dump(Path("x-1.dist-info/RECORD"))
    assert not dumps.is_dump(Path("x/RECORD"))


def test_logs_depend_on_seed_and_number_alone():
    assert logs.log_document(3, 2000, 1) == logs.log_document(3, 2000, 1)
    assert logs.log_document(3, 2000, 1).text != logs.log_document(3, 2000, 2).text
    assert logs.log_document(3, 4000, 1).text.startswith(logs.log_document(3, 2000, 1).text)
    found = [logs.log_document(i, 1500, 0) for i in range(60)]
    assert {d.facts["layout"] for d in found} == set(logs.LAYOUTS)
    assert all("{" not in d.text or d.facts["layout"] == "json" for d in found)
    assert survey(d.text for d in found)["kept"] < 0.2


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("the of " * 25, []),
        ("the of " * 24 + "the", ["words"]),
        ("wonderful things " * 25, ["stop words"]),
        ("the of " * 20 + "12 " * 11, ["non-alphabetic words"]),
        ("the of # " * 25, ["mean word length", "symbols", "non-alphabetic words"]),
    ],
)
def test_simple_checks(text, why):
    text = text.replace("of", "office of", 1) if why == [] else text
    found = reasons(text)
    assert [w for w in found if w != "mean word length"] == [
        w for w in why if w != "mean word length"
    ]
