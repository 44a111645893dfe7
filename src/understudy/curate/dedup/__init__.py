"""Deduplication of pages: exact, MinHash, Bloom filter and repeated substrings, as global steps."""
