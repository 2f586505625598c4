"""Models: the autoencoder base and the models of the papers."""

from keras_vq.models.autoencoder import VQAutoencoder as VQAutoencoder
from keras_vq.models.vqvae import VQVAE as VQVAE
