"""`understudy data subset|splits` from a store to tars."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from understudy.cli import main
from understudy.data.exporters import export
from understudy.data.periods_uids import read_split, unpack_uids
from understudy.data.scenes.pack import png
from understudy.data.store import Store


def test_splits_of_a_store_choose_the_samples_of_its_tars(tmp_path, capsys):
    uids = [f"{i * 7919:032x}" for i in range(12)]
    table = pa.table(
        {
            "id": uids,
            "uid": uids,
            "image": pa.array([png(np.zeros((4, 4, 3), np.uint8), level=1)] * 12, pa.binary()),
            "text": [f"n {i}" for i in range(12)],
            "time": pa.array([2016 + i % 3 for i in range(11)] + [None], pa.int64()),
        }
    )
    store = Store.create(tmp_path / "store", [table])
    export(store, tmp_path / "tars", "webdataset", rows_per_shard=5)
    assert main(["data", "splits", str(tmp_path / "store"), str(tmp_path / "periods")]) == 0
    printed = capsys.readouterr().out
    assert "2017.npy: 4 ids" in printed
    assert "1 of 12 rows have no possible time" in printed
    assert unpack_uids(read_split(tmp_path / "periods" / "2018.npy")) == uids[2::3][:3]
    words = ["data", "subset", str(tmp_path / "tars"), str(tmp_path / "y2017")]
    words += ["--uids", str(tmp_path / "periods" / "2017.npy")]
    assert main([*words, "--exclude", str(tmp_path / "held.txt")]) == 2
    (tmp_path / "held.txt").write_text(uids[1] + "\n")
    assert main([*words, "--exclude", str(tmp_path / "held.txt")]) == 0
    assert "3 samples in 1 tars" in capsys.readouterr().out


def test_a_store_without_ids_is_refused(tmp_path, capsys):
    table = pa.table({"id": ["a"], "time": [2016]})
    Store.create(tmp_path / "store", [table])
    assert main(["data", "splits", str(tmp_path / "store"), str(tmp_path / "out")]) == 2
    assert "no column 'uid' to take ids from; name it with --uid" in capsys.readouterr().err
