"""Models: the autoencoder base and the models of the papers."""

from keras_vq.models.autoencoder import VQAutoencoder as VQAutoencoder
from keras_vq.models.discriminators import Discriminator as Discriminator
from keras_vq.models.discriminators import PatchGAN as PatchGAN
from keras_vq.models.tiling import Tiling as Tiling
from keras_vq.models.vqgan import VQGAN as VQGAN
from keras_vq.models.vqvae import VQVAE as VQVAE
from keras_vq.models.vqvae2 import VQVAE2 as VQVAE2
