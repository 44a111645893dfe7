"""How good a page is, and in which language: scores, thresholds on the pool, decontamination."""
