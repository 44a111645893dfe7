"""Language models: generating text token by token, with cached keys and values."""
