"""Map files: what they hold, chains, and other formats."""

import json

import numpy as np
import pytest
import torch
from map_world import NEW, OLD, make_map, make_store, quick, vectors
from safetensors.torch import save_file

from understudy.core.errors import ConfigError, DataError, ModelError
from understudy.data.spaces import Space, SpaceError
from understudy.update.fit import fit_map
from understudy.update.lineage import chain_maps, mapped_space
from understudy.update.maps import FORMAT, load_map, read_manifest
from understudy.update.pair_files import pairs_of_file
from understudy.update.vector_files import write_npz

pytestmark = pytest.mark.filterwarnings("ignore::understudy.update.fit.FitWarning")
THIRD = Space(model="third", fingerprint="dd", dim=4)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("world") / "s")


@pytest.fixture(scope="module")
def made(store, tmp_path_factory):
    return make_map(store, tmp_path_factory.mktemp("map"), side="embed.psi", loss="l2+disc+unc")


@pytest.fixture(scope="module")
def onward(tmp_path_factory):
    """A map from the new space to a third one."""
    folder = tmp_path_factory.mktemp("onward")
    new = vectors()["new"]
    third = (new @ np.random.default_rng(9).normal(size=(5, 4))).astype(np.float32)
    fields, spaces = {"old": new, "new": third}, {"old": NEW, "new": THIRD}
    write_npz(folder / "p.npz", np.array([str(i) for i in range(300)]), fields, spaces=spaces)
    return fit_map(pairs_of_file(folder / "p.npz"), quick(loss="l2+unc"), folder / "run").map


def test_what_is_saved_is_what_is_loaded(made, tmp_path):
    path = made.save(tmp_path / "map.safetensors")
    found = load_map(path)
    assert found.fingerprint == made.fingerprint
    assert found.manifest == json.loads(json.dumps(made.manifest))
    x = vectors()
    for a, b in zip(
        found.transform(x["old"], x["side"]), made.transform(x["old"], x["side"]), strict=True
    ):
        np.testing.assert_array_equal(a, b)
    again = made.save(tmp_path / "again.safetensors")
    assert path.read_bytes() == again.read_bytes()


def test_the_manifest_says_where_it_comes_from(made):
    manifest = made.manifest
    assert made.from_space == OLD
    assert made.to_space == NEW
    assert manifest["dims"] == {"old": 6, "side": 3, "new": 5}
    assert (manifest["inner"], manifest["uncertainty"]) == (32, True)
    assert manifest["columns"]["new"] == "embed.new"
    assert manifest["loss"]["mu_unc"] == 0.5
    assert manifest["held_out_pairs"] == 30
    assert manifest["code_version"]
    assert set(manifest["norms"]) == {"old", "new", "side"}


def test_chunks_do_not_matter(made):
    x = vectors()
    whole = made.transform(x["old"], x["side"])
    parts = made.transform(x["old"], x["side"], chunk_rows=7)
    np.testing.assert_allclose(parts[0], whole[0], atol=1e-5)
    np.testing.assert_allclose(parts[1], whole[1], atol=1e-5)
    module = made.module
    with torch.no_grad():  # the inference form is the map in eval mode
        z, u = module(torch.from_numpy(x["old"]), torch.from_numpy(x["side"]))
    np.testing.assert_allclose(z.numpy(), whole[0], atol=1e-4)
    np.testing.assert_allclose(u.numpy(), whole[1], atol=1e-4)
    z, u = made.transform(x["old"][:0], x["side"][:0])
    assert (z.shape, u.shape) == ((0, 5), (0,))


def test_the_fingerprint_depends_on_weights_and_spaces(made):
    from understudy.update.maps import CompatibleMap

    other = {**made.manifest, "to_space": {**NEW.to_dict(), "fingerprint": "zz"}}
    assert CompatibleMap(made.module, other).fingerprint != made.fingerprint
    renamed = {**made.manifest, "held_out_mse": 1.0}
    assert CompatibleMap(made.module, renamed).fingerprint == made.fingerprint


def test_widths_are_checked(made):
    x = vectors()
    with pytest.raises(DataError, match="the map takes 6"):
        made.transform(x["new"], x["side"])
    with pytest.raises(DataError, match="needs side information"):
        made.transform(x["old"])
    with pytest.raises(DataError, match="as much side information"):
        made.transform(x["old"], x["side"][:5])
    with pytest.raises(DataError, match="the map takes 6"):
        made.transform(x["new"][:0], x["side"][:0])


def test_files_that_are_no_maps(tmp_path, made):
    with pytest.raises(DataError, match="no such map file"):
        load_map(tmp_path / "none.safetensors")
    (tmp_path / "x.safetensors").write_bytes(b"no")
    with pytest.raises(DataError, match="not a safetensors file"):
        load_map(tmp_path / "x.safetensors")
    save_file({"a": torch.ones(1)}, tmp_path / "y.safetensors")
    with pytest.raises(ModelError, match="not a map file"):
        load_map(tmp_path / "y.safetensors")
    header = {"version": 99, "config": {}, "manifest": {}}
    save_file({"a": torch.ones(1)}, tmp_path / "z.safetensors", {FORMAT: json.dumps(header)})
    with pytest.raises(ModelError, match="version 99"):
        read_manifest(tmp_path / "z.safetensors")


def test_a_chain_of_maps(made, onward, tmp_path):
    chain = chain_maps([made, onward])
    x = vectors()
    z1, u1 = made.transform(x["old"], x["side"])
    z2, u2 = onward.transform(z1)
    z, u = chain.transform(x["old"], x["side"])
    np.testing.assert_allclose(z, z2, atol=1e-4)
    np.testing.assert_allclose(u, np.logaddexp(u1, u2), atol=1e-4)
    assert chain.from_space == OLD
    assert chain.to_space == THIRD
    found = load_map(chain.save(tmp_path / "chain.safetensors"))
    assert found.fingerprint == chain.fingerprint
    np.testing.assert_array_equal(found.transform(x["old"], x["side"])[0], z)
    assert [s["fingerprint"] for s in found.manifest["chain"]] == [
        made.fingerprint,
        onward.fingerprint,
    ]


def test_lineage_of_one_map_and_of_a_chain(made, onward):
    once = mapped_space(OLD, made)
    assert (once.kind, once.target, once.lineage) == ("mapped", NEW.id, (OLD.id,))
    chain = mapped_space(OLD, chain_maps([made, onward]))
    assert (chain.target, chain.lineage) == (THIRD.id, (OLD.id, NEW.id))
    twice = mapped_space(once, onward)  # the same journey with a stop on the way
    assert (twice.target, twice.lineage) == (THIRD.id, (OLD.id, once.id))


def test_chains_that_do_not_meet(made, onward):
    with pytest.raises(SpaceError, match="chain maps that meet"):
        chain_maps([onward, made])
    with pytest.raises(SpaceError):
        chain_maps([made, made])


def test_a_later_map_must_not_need_side_information(made, onward, store, tmp_path):
    new = vectors()["new"]
    fields = {"old": new, "new": new[:, :4].copy(), "side": new[:, 4:].copy()}
    spaces = {"old": NEW, "new": THIRD}
    write_npz(tmp_path / "p.npz", np.array([str(i) for i in range(300)]), fields, spaces=spaces)
    needy = fit_map(pairs_of_file(tmp_path / "p.npz"), quick(epochs=2), tmp_path / "run").map
    with pytest.raises(ConfigError, match="needs side information"):
        chain_maps([made, needy])


def test_onnx_gives_what_the_map_gives(made, onward, tmp_path):
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    from understudy.update.export_map import export_map

    path = export_map(made, tmp_path / "map.onnx")
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    x = vectors()
    given = np.concatenate([x["old"], x["side"]], axis=1)
    out = session.run(None, {"vectors": given})[0]
    z, u = made.transform(x["old"], x["side"])
    np.testing.assert_allclose(out[:, :5], z, atol=1e-4)
    np.testing.assert_allclose(out[:, 5], u, atol=1e-4)
    facts = session.get_modelmeta().custom_metadata_map
    assert facts["fingerprint"] == made.fingerprint
    assert json.loads(facts["understudy-map"])["to_space"] == NEW.to_dict()
