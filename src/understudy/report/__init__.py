"""HTML reports: one self-contained file each, readable without a network."""
