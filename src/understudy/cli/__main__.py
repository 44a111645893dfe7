"""`python -m understudy.cli`."""

import sys

from understudy.cli import main

if __name__ == "__main__":
    sys.exit(main())
