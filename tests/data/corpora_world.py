"""A small machine: a standard library, installed packages, manual pages, changelogs."""

import gzip
import random
from importlib import metadata
from pathlib import Path

from understudy.data.corpora import installed, python_files, system

WORDS = (
    "the value of a result and that which to be with have known before each call reads every name "
    "from file returns object when given list raise error if not found then keep order for later "
    "use while making sure no other part changes what was stored under same key"
).split()

METADATA = """Metadata-Version: 2.4
Name: {name}
Version: 1.{n}
Description-Content-Type: text/markdown

# {name}

[![build](https://x.example/b.svg)](https://x.example)

{prose}

```
pip install {name}
```
"""


def sentence(chance, words=14):
    return " ".join(chance.choice(WORDS) for _ in range(words)).capitalize() + "."


def prose(chance, sentences=12):
    return " ".join(sentence(chance) for _ in range(sentences))


def module(chance, functions=4):
    parts = [
        f'"""{prose(chance)}"""',
        "import os",
        f"TABLE = {[chance.random() for _ in range(9)]}",
    ]
    for i in range(functions):
        body = "\n".join(
            f"    value_{j} = os.path.join(name, '{chance.random()}')" for j in range(9)
        )
        parts.append(
            f'def call_{i}(name: str) -> str:\n    """{prose(chance)}"""\n{body}\n    return name'
        )
    return "\n\n\n".join(parts) + "\n"


def package(site, name, n, chance):
    folder, info = site / name, site / f"{name}-1.{n}.dist-info"
    folder.mkdir(parents=True)
    info.mkdir()
    for i in range(3):
        (folder / f"mod_{i}.py").write_text(module(chance))
    (folder / "data.json").write_text(str([chance.random() for _ in range(400)]))
    (folder / "app.min.js").write_text("".join(f"var a{i}={chance.random()};" for i in range(200)))
    (folder / "tests").mkdir()
    (folder / "tests" / "test_all.py").write_text('"""' + prose(chance, 30) + '"""')
    (info / "METADATA").write_text(METADATA.format(name=name, n=n, prose=prose(chance)))
    (info / "LICENSE").write_text(prose(chance, 30).upper())
    files = sorted(p.relative_to(site).as_posix() for p in site.rglob("*") if p.is_file())
    mine = [f for f in files if f.startswith((f"{name}/", f"{name}-1."))]
    record = f"{name}-1.{n}.dist-info/RECORD"
    lines = [f"{file},sha256={chance.random()},{i}" for i, file in enumerate(mine)]
    (site / record).write_text("\n".join([*lines, f"{record},,"]) + "\n")


def man_page(chance, name):
    return (
        f".TH {name} 1\n.SH NAME\n{name} \\- {sentence(chance)}\n.SH DESCRIPTION\n{prose(chance)}\n"
    )


def entry(name, number, chance):
    return (
        f"{name} (1.{number}-1) unstable; urgency=medium\n\n  * {prose(chance, 3)}\n\n"
        f" -- A. Person <a@b.example>  Mon, {1 + number % 28:02d} Jan 2006 15:04:05 +0200\n\n"
    )


def build(root: Path, packages=30, modules=40, pages=60):
    """Write the world; the same arguments write the same."""
    chance = random.Random(7)
    lib, site, man, doc = root / "lib", root / "site", root / "man", root / "doc"
    lib.mkdir(parents=True)
    for i in range(modules):
        (lib / f"lib{i:02d}.py").write_text(module(chance))
    for i in range(packages):
        package(site, f"pack{i:02d}", i, chance)
    for i in range(pages):
        folder = man / "man1" if i % 4 else man / "de" / "man1"
        folder.mkdir(parents=True, exist_ok=True)
        name = f"tool{i:02d}"
        (folder / f"{name}.1.gz").write_bytes(gzip.compress(man_page(chance, name).encode()))
    for i in range(20):
        folder = doc / f"deb{i:02d}"
        folder.mkdir(parents=True)
        text = "".join(entry(f"deb{i:02d}", n, chance) for n in range(9, 0, -1))
        (folder / "changelog.Debian.gz").write_bytes(gzip.compress(text.encode()))
    return root


def enter(root: Path, patch=setattr):
    """Make the corpora see that world instead of this machine."""
    found = {}
    for distribution in metadata.distributions(path=[str(root / "site")]):
        found[installed.canonical(distribution.metadata["Name"])] = distribution
    found = dict(sorted(found.items()))
    patch(installed, "_found", lambda: found)
    patch(python_files, "stdlib_folder", lambda: root / "lib")
    patch(system, "MAN", root / "man")
    patch(system, "DOC", root / "doc")
    # The system's data files and licences aren't part of it.
    from understudy.data.corpora import dumps

    patch(dumps, "SYSTEM_FOLDERS", ())
    patch(installed, "COMMON_LICENCES", root / "nothing")
    patch(installed, "DOC", root / "nothing")
