"""What torchrun starts for each worker: notes the start, then becomes the worker's command.

Run as a file with `python -I`: the job's Python may not have this package. Imports nothing of it.

After a restart of all workers inside an attempt UNDERSTUDY_RESUME is 1.
"""

import json
import os
import sys
import time

RESTARTS = "restarts.jsonl"


def main() -> None:
    """Append a line to the attempt's list of starts, then execute the command."""
    restart = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))
    if restart:
        os.environ["UNDERSTUDY_RESUME"] = "1"
    folder = os.environ.pop("UNDERSTUDY_ATTEMPT_DIR", "")
    if folder:
        facts = {
            "restart": restart,
            "rank": int(os.environ["RANK"]),
            "world": int(os.environ["WORLD_SIZE"]),
            "t": time.time(),
        }
        handle = os.open(
            os.path.join(folder, RESTARTS), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644
        )
        os.write(handle, (json.dumps(facts) + "\n").encode())
        os.close(handle)
    command = sys.argv[1:]
    os.execvp(command[0], command)


if __name__ == "__main__":
    main()
