"""Documents to training sequences: tokenising, packing, length buckets, global shuffle, costs."""
