"""The recipe, the results and the bundled weights of `vqgan_tiny_imagenet`."""
