"""Dense prediction on image towers: pyramids, heads for classes, depth and objects."""
