"""Nothing that a file holds is executed, leaves its archive or unpacks without end."""

from __future__ import annotations

import collections
import gzip
import io
import json
import os
import pickle
import tarfile
import zipfile
import zlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from import_kit import picture, sample, write_tar

from understudy.core.errors import DataError
from understudy.data.importers import import_dir, streams
from understudy.data.importers.safe_arrays import load_npz, load_torch
from understudy.data.importers.safe_pickle import as_array, load_pickle, unpack


class Hostile:
    """Creates a file when it is unpickled by anything but a restricted reader."""

    def __init__(self, path) -> None:
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_the_hostile_pickle_is_hostile(tmp_path):
    pickle.loads(pickle.dumps(Hostile(tmp_path / "ran")))
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize("protocol", range(6))
def test_malicious_pickle_does_not_run(tmp_path, protocol):
    data = pickle.dumps((0, [Hostile(tmp_path / "ran")]), protocol)
    for wrapped in (data, gzip.compress(data), zlib.compress(data)):
        with pytest.raises(DataError, match=r"x: refused or damaged pickle \(it asks for .*mkdir"):
            load_pickle(wrapped, "x")
    assert not (tmp_path / "ran").exists()


def test_malicious_torch_file_does_not_run(tmp_path):
    out = io.BytesIO()
    torch.save({"image_emb": Hostile(tmp_path / "ran")}, out)
    with pytest.raises(DataError, match="which is not plain data"):
        load_torch(gzip.compress(out.getvalue()), "x")
    files = sample(0)
    del files["npz"]
    source = write_tar(
        tmp_path / "0.tar", [("a", {**files, "pth.gz": gzip.compress(out.getvalue())})]
    )
    with pytest.raises(DataError, match="uid 'uid0000', pth.gz: refused or damaged pickle"):
        import_dir(source, tmp_path / "s")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "code",
    [
        b"cbuiltins\neval\n(S'1'\ntR.",
        b"cos\nsystem\n(S'true'\ntR.",
        b"(S'true'\nios\nsystem\n.",
        b"\x80\x04\x8c\x08builtins\x8c\x07getattr\x93.",
        b"ctorch.storage\n_load_from_bytes\n(C\x01xtR.",
        b"cnumpy\nload\n(S'x'\ntR.",
        b"cnumpy.core.multiarray\nfromfile\n.",
        b"ccopyreg\n_reconstructor\n.",
        b"cbuiltins\nbytearray\n(J\xff\xff\xff\x7ftR.",
        b"\x80\x02\x82\x01.",
    ],
)
def test_hand_written_pickles_are_refused(code):
    with pytest.raises(DataError, match="refused or damaged"):
        load_pickle(code, "x")


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=200))
def test_garbage_is_an_error_not_a_crash(data):
    said = []
    for read in (load_pickle, load_torch, load_npz):
        try:
            read(data, "some.file")
        except DataError as error:
            said.append(str(error))
    assert all(message.startswith("some.file") for message in said)


def test_object_arrays_are_refused(tmp_path):
    array = np.array([1, "a", None], dtype=object)
    with pytest.raises(DataError, match="arrays of kind 'O"):
        load_pickle(pickle.dumps(array), "x")
    out = io.BytesIO()
    np.savez(out, a=np.array([Hostile(tmp_path / "ran")], dtype=object))
    with pytest.raises(DataError, match="'a.npy' is not an array"):
        load_npz(out.getvalue(), "x")
    assert not (tmp_path / "ran").exists()


def test_array_over_too_few_bytes_is_refused():
    data = pickle.dumps(np.arange(6.0), 2)
    assert b"K\x06\x85" in data
    with pytest.raises(DataError, match=r"shape \(7,\) over 48 bytes"):
        load_pickle(data.replace(b"K\x06\x85", b"K\x07\x85"), "x")


@settings(max_examples=40, deadline=None)
@given(
    hnp.arrays(
        st.sampled_from(["f2", "f4", "f8", "i8", "u1", "?", ">f4"]), hnp.array_shapes(max_dims=3)
    ),
    st.integers(0, 5),
)
def test_arrays_survive(array, protocol):
    found = as_array(load_pickle(pickle.dumps({"a": array}, protocol), "x")["a"])
    np.testing.assert_array_equal(found, array)
    assert found.dtype == array.dtype
    fortran = as_array(load_pickle(pickle.dumps(np.asfortranarray(array), protocol), "x"))
    np.testing.assert_array_equal(fortran, array)


def test_plain_data_survives():
    data = (3, [{"params": [(1, 2.5), True, None], "s": {1, 2}, "o": collections.OrderedDict(a=1)}])
    assert load_pickle(pickle.dumps(data, 4), "x") == data
    assert load_pickle(pickle.dumps([np.float64(0.5), np.int64(3)]), "x") == [0.5, 3]


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16, torch.float32, torch.int64])
def test_tensors_are_read_as_torch_reads_them(kind):
    base = torch.arange(24).reshape(4, 6).to(kind)
    tensors = {"a": base, "row": base[1:3, ::2], "t": base.T, "empty": base[:0], "n": 5}
    out = io.BytesIO()
    torch.save(tensors, out)
    found = load_torch(out.getvalue(), "x")
    expected = torch.load(io.BytesIO(out.getvalue()), weights_only=True)
    for name in ("a", "row", "t", "empty"):
        np.testing.assert_array_equal(found[name], expected[name].float().numpy())
    assert found["n"] == 5
    assert found["a"].dtype == (
        np.float32 if kind == torch.bfloat16 else np.dtype(found["a"].dtype)
    )


def test_tensor_larger_than_its_storage_is_refused():
    out = io.BytesIO()
    torch.save({"a": torch.zeros(1).expand(1000)}, out)
    with pytest.raises(DataError, match="outside of its storage"):
        load_torch(out.getvalue(), "x")


def test_old_torch_format_is_named():
    out = io.BytesIO()
    torch.save({"a": torch.zeros(2)}, out, _use_new_zipfile_serialization=False)
    with pytest.raises(DataError, match="format before 1.6"):
        load_torch(out.getvalue(), "x")


def test_gzip_bomb(tmp_path):
    bomb = gzip.compress(bytes(50_000_000))
    with pytest.raises(DataError, match="archive bomb"):
        unpack(bomb, "x", limit=1_000_000)
    assert unpack(gzip.compress(b"ab") + gzip.compress(b"c"), "x") == b"abc"
    with pytest.raises(DataError, match="cut off"):
        unpack(bomb[:1000], "x")


def test_zip_bomb():
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", bytes(5_000_000))
    with pytest.raises(DataError, match="archive bomb"):
        load_npz(out.getvalue(), "x", limit=1_000_000)


def test_npz_with_a_damaged_member():
    out = io.BytesIO()
    np.savez(out, a=np.arange(100.0))
    data = bytearray(out.getvalue())
    data[300] ^= 1
    with pytest.raises(DataError, match="'a.npy' is damaged"):
        load_npz(bytes(data), "x")


def test_compressed_stream_bomb(tmp_path, monkeypatch):
    monkeypatch.setattr(streams, "_SLACK", 1000)
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(b" " * 9_000_000))
    with pytest.raises(DataError, match="archive bomb"):
        import_dir(path, tmp_path / "s")


def test_huge_member(tmp_path, monkeypatch):
    monkeypatch.setattr(streams, "MAX_MEMBER", 100)
    source = write_tar(tmp_path / "0.tar", [("a", {"txt": b"x" * 101})])
    with pytest.raises(DataError, match="'a.txt' has 101 bytes"):
        import_dir(source, tmp_path / "s")


def tar_with(path, info: tarfile.TarInfo, data: bytes = b""):
    with tarfile.open(path, "w") as archive:
        info.size = len(data)
        archive.addfile(info, io.BytesIO(data))
    return path


@pytest.mark.parametrize("name", ["../a.txt", "/etc/a.txt", "x/../../a.txt", "x\\..\\a.txt"])
def test_path_traversal_is_refused(tmp_path, name):
    source = tar_with(tmp_path / "0.tar", tarfile.TarInfo(name), b"x")
    with pytest.raises(DataError, match="leads out of the archive"):
        import_dir(source, tmp_path / "s")


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
def test_links_in_archives_are_refused(tmp_path, kind):
    info = tarfile.TarInfo("a.txt")
    info.type, info.linkname = kind, "/etc/passwd"
    source = tar_with(tmp_path / "0.tar", info)
    with pytest.raises(DataError, match="'a.txt' is a link to '/etc/passwd'"):
        import_dir(source, tmp_path / "s", kind="webdataset")


def test_devices_in_archives_are_refused(tmp_path):
    info = tarfile.TarInfo("a.txt")
    info.type = tarfile.CHRTYPE
    with pytest.raises(DataError, match="not a regular file"):
        import_dir(tar_with(tmp_path / "0.tar", info), tmp_path / "s", kind="webdataset")


def test_links_out_of_a_folder_are_refused(tmp_path):
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "b.jpg").write_bytes(picture(0))
    folder = tmp_path / "in"
    (folder / "cat").mkdir(parents=True)
    (folder / "cat" / "a.jpg").write_bytes(picture(1))
    (folder / "cat" / "b.jpg").symlink_to(secret / "b.jpg")
    with pytest.raises(DataError, match="leads out of"):
        import_dir(folder, tmp_path / "s")


def test_image_paths_out_of_a_folder_are_refused(tmp_path):
    (tmp_path / "x.jpg").write_bytes(picture(0))
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "a.jsonl").write_text(json.dumps({"id": "a", "image": "../x.jpg"}) + "\n")
    with pytest.raises(DataError, match="'../x.jpg' leads out of"):
        import_dir(folder, tmp_path / "s")
