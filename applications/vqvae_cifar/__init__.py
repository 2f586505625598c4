"""The recipe, the results and the bundled weights of `vqvae_cifar`."""
