"""Text towers and the tokenizers that feed them."""
