"""Image towers: MobileOne and RepMixer blocks, MCi, ViT with a convolutional stem, small CNNs."""
