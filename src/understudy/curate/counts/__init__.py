"""How often each document is repeated: counts from quality, duplicates and a token budget."""
