"""The recipe of VQ-VAE-2 for ImageNet at 256 pixels, without weights yet."""
