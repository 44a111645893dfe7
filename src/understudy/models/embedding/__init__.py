"""Networks between embedding spaces: the transformation of compatible updates, and linear maps."""
