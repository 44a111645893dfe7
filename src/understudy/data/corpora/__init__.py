"""Real text: what every machine has on disk, and the pool that claims about curation draw from.

| function | yields |
| --- | --- |
| `python_files.stdlib_sources()` | source files of the standard library |
| `python_files.docstrings(packages)` | the prose of a module's docstrings, one document a module |
| `installed.readmes(packages)` | READMEs of installed packages |
| `installed.licences(packages)` | licence texts |
| `system.man_pages(language)` | manual pages as plain text |
| `system.changelogs()` | dated entries of Debian changelogs, each once |
| `pool.pool(config)` | a pool of clean and noisy documents; `pool_write.write_pool` writes it |

Nothing is fetched and no package is imported. Texts that the user's package client brings are in
`understudy.data.fetch_text`.
"""

from understudy.data.corpora.document import Document
from understudy.data.corpora.installed import licences, readmes
from understudy.data.corpora.python_files import docstrings, stdlib_sources
from understudy.data.corpora.system import changelogs, man_pages

__all__ = [
    "Document",
    "changelogs",
    "docstrings",
    "licences",
    "man_pages",
    "readmes",
    "stdlib_sources",
]
