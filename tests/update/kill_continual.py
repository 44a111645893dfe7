"""Go through a stream; the test kills this process in the middle of a step."""

import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))

from continual_world import config_of, score, stream_of

from understudy.data.store import Store
from understudy.update.continual import run_stream

if __name__ == "__main__":
    torch.set_num_threads(1)
    store = Store.open(sys.argv[1])
    config = config_of(sys.argv[3], iterations=12)
    run_stream(store, stream_of(store), config, sys.argv[2], score)
