"""`python -m understudy.launch.run_replica FOLDER`: what engines start for each replica."""

from __future__ import annotations

import sys
from pathlib import Path

from understudy.launch.replica import run_replica

if __name__ == "__main__":
    sys.exit(run_replica(Path(sys.argv[1])))
