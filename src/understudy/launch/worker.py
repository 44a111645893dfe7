"""What torchrun starts for each worker: notes the start, then becomes the worker's command.

Run as a file with `python -I`: the job's Python may not have this package. Imports nothing of it.

After a restart of all workers inside an attempt UNDERSTUDY_RESUME is 1. A round is known by where
its workers meet: each agent counts only the restarts that it made itself.
"""

import json
import os
import sys
import time

RESTARTS = "restarts.jsonl"


def _met_before(path: str, meet: str) -> bool:
    """Say whether workers of this attempt have met elsewhere before."""
    with open(path, encoding="utf-8") as file:
        for line in file:
            try:
                if json.loads(line)["meet"] != meet:
                    return True
            except (ValueError, KeyError):
                continue
    return False


def main() -> None:
    """Append a line to the attempt's list of starts, then execute the command."""
    restart = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))
    folder = os.environ.pop("UNDERSTUDY_ATTEMPT_DIR", "")
    again = restart > 0
    if folder:
        facts = {
            "restart": restart,
            "rank": int(os.environ["RANK"]),
            "world": int(os.environ["WORLD_SIZE"]),
            "meet": os.environ["MASTER_ADDR"] + ":" + os.environ["MASTER_PORT"],
            "t": time.time(),
        }
        path = os.path.join(folder, RESTARTS)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.write(handle, (json.dumps(facts) + "\n").encode())
        os.close(handle)
        again = again or _met_before(path, facts["meet"])
    if again:
        os.environ["UNDERSTUDY_RESUME"] = "1"
    command = sys.argv[1:]
    os.execvp(command[0], command)


if __name__ == "__main__":
    main()
