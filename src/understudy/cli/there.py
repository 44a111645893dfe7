"""`python -m understudy.cli.there FOLDER WORD ...`: a command as if it were typed in a folder.

Jobs that `--on` submits run this.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence


def there(argv: Sequence[str]) -> int:
    """Run a command in a folder and return its exit status."""
    from understudy.cli import main

    folder, *words = argv
    try:
        os.chdir(folder)
    except OSError as error:
        print(
            f"understudy: {folder}: cannot be entered on this node ({error.strerror}); the folder "
            "in which --on was typed must be on a file system that every node sees.",
            file=sys.stderr,
        )
        return 2
    if os.environ.get("UNDERSTUDY_ATTEMPT", "1") != "1":
        words = [word for word in words if word != "--fresh"]  # a second attempt goes on
    return main(words)


if __name__ == "__main__":
    sys.exit(there(sys.argv[1:]))
