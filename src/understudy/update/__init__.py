"""Replacing models and following time: spaces, maps, backfilling, serving, continual training."""
