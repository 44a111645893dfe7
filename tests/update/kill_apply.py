"""Apply a map slowly enough to be killed on the way; run as a script."""

from __future__ import annotations

import sys
import time

from understudy.data.store import Store
from understudy.update.apply import apply_map
from understudy.update.maps import CompatibleMap, load_map


def main() -> None:
    """Map `embed.old` of a store, a small part at a time, with a pause between parts."""
    path, map_path, pause, in_place = sys.argv[1:]
    compatible, quick = load_map(map_path), CompatibleMap.transform

    def slowly(self, *args, **kwargs):
        time.sleep(float(pause))
        return quick(self, *args, **kwargs)

    CompatibleMap.transform = slowly  # type: ignore[method-assign]
    store = Store.open(path)
    print("ready", flush=True)
    apply_map(store, compatible, in_place=in_place == "yes", unit_rows=17)


if __name__ == "__main__":
    main()
