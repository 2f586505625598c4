"""The recipes of VQ-VAE-2 for faces, at 256 and 1024 pixels."""
