"""VQ-VAE-2 on Tiny ImageNet, and one level to compare it with."""
