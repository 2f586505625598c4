"""The recipes of VQGANs for ImageNet at 256 pixels, without weights yet."""
