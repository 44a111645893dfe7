"""How curation runs: pages, stages, and tasks that any executor can run."""
