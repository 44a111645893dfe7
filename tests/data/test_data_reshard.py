"""Resharding by ids: the right samples with their bytes, whatever is killed."""

from __future__ import annotations

import io
import json
import tarfile

import numpy as np
import pytest

from understudy.core.errors import ConfigError, DataError
from understudy.data import reshard as module
from understudy.data.importers import import_dir
from understudy.data.periods_uids import pack_uids, write_split
from understudy.data.reshard import read_ids, reshard
from understudy.data.scenes.pack import png


def uid(number: int) -> str:
    return f"{number * 0x9E3779B97F4A7C15F39CC0605CEDC835 % 2**128:032x}"


def members(path):
    with tarfile.open(path) as tar:
        return [(m.name, tar.extractfile(m).read()) for m in tar]


@pytest.fixture
def tars(tmp_path):
    """Three tars of five samples; every second one says its uid in `json`, the others by key."""
    folder = tmp_path / "tars"
    folder.mkdir()
    for shard in range(3):
        with tarfile.open(folder / f"{shard:03d}.tar", "w") as tar:
            for i in range(5):
                number = shard * 5 + i
                key = f"{number:04d}" if number % 2 else uid(number)
                image = png(np.full((4, 4, 3), number, np.uint8), level=1)
                files = {"png": image, "txt": f"a {number}".encode()}
                if number % 2:
                    files["json"] = json.dumps({"uid": uid(number)}).encode()
                for suffix, data in files.items():
                    info = tarfile.TarInfo(f"{key}.{suffix}")
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
    (folder / "sizes.json").write_text(json.dumps({f"{s:03d}.tar": 5 for s in range(3)}))
    return folder


def texts(folder):
    found = []
    for path in sorted(folder.glob("*.tar")):
        found += [int(data.split()[1]) for name, data in members(path) if name.endswith(".txt")]
    return found


def test_samples_of_a_split_with_their_bytes(tars, tmp_path):
    wanted = [1, 2, 3, 8, 9, 13]
    split = write_split(tmp_path / "2018.npy", pack_uids([uid(n) for n in [*wanted, 99]]))
    out = tmp_path / "out"
    made = reshard(tars, out, read_ids(split), exclude=pack_uids([uid(9)]), rows_per_shard=2)
    assert texts(out) == [1, 2, 3, 8, 13]
    assert made.sizes == {"00000000.tar": 2, "00000001.tar": 2, "00000002.tar": 1}
    assert json.loads((out / "sizes.json").read_text()) == made.sizes
    assert (made.seen, made.missing) == (15, 1)
    before = {name: data for path in tars.glob("*.tar") for name, data in members(path)}
    for path in out.glob("*.tar"):
        for name, data in members(path):
            assert before[name] == data
    again = import_dir(out, tmp_path / "store")
    assert again.num_rows == 5


def test_a_killed_run_goes_on_and_ends_the_same(tars, tmp_path, monkeypatch):
    ids = pack_uids([uid(n) for n in range(15)])
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    reshard(tars, whole, ids, rows_per_shard=4)
    write = module._write
    calls = []

    def dies(folder, samples, sizes, following):
        if len(calls) == 2:
            raise KeyboardInterrupt
        calls.append(1)
        write(folder, samples, sizes, following)

    monkeypatch.setattr(module, "_write", dies)
    with pytest.raises(KeyboardInterrupt):
        reshard(tars, broken, ids, rows_per_shard=4)
    monkeypatch.setattr(module, "_write", write)
    made = reshard(tars, broken, ids, rows_per_shard=4)
    assert made.seen == 7  # two tars of four were done
    assert made.missing is None
    for path in whole.glob("*.tar"):
        assert path.read_bytes() == (broken / path.name).read_bytes()
    assert texts(broken) == list(range(15))


def test_what_is_refused(tars, tmp_path):
    ids = pack_uids([uid(1)])
    with pytest.raises(DataError, match="none of 15 samples has one of the 1 ids"):
        reshard(tars, tmp_path / "none", pack_uids([uid(77)]))
    with pytest.raises(ConfigError, match="rows_per_shard: expected at least 1, got 0"):
        reshard(tars, tmp_path / "zero", ids, rows_per_shard=0)
    reshard(tars, tmp_path / "out", ids)
    with pytest.raises(DataError, match="a subset of another source, ids or size of shards"):
        reshard(tars, tmp_path / "out", pack_uids([uid(2)]))
    (tars / "sizes.json").write_text(json.dumps({f"{s:03d}.tar": 5 + (s == 1) for s in range(3)}))
    with pytest.raises(DataError, match=r"001\.tar: sizes\.json says 6 samples, the tar has 5"):
        reshard(tars, tmp_path / "other", ids)
    with pytest.raises(DataError, match=r"001\.tar: sizes\.json says 6 samples, the tar has 5"):
        import_dir(tars, tmp_path / "store")
    (tars / "sizes.json").write_text(json.dumps({"000.tar": 5, "001.tar": 5}))
    with pytest.raises(DataError, match=r"002\.tar: sizes\.json does not list this shard"):
        import_dir(tars, tmp_path / "store2")


def test_an_id_must_be_one(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        info = tarfile.TarInfo("0001.txt")
        tar.addfile(info, io.BytesIO(b""))
    with pytest.raises(DataError, match=r"a\.tar, '0001': '0001' has 4 characters; expected 32"):
        reshard(tmp_path / "a.tar", tmp_path / "out", pack_uids([uid(1)]))
