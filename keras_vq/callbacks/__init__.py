"""Callbacks that show how a vector-quantized model is doing."""

from keras_vq.callbacks.codebook_health import CodebookHealth as CodebookHealth
from keras_vq.callbacks.reconstruction_grid import (
    ReconstructionGrid as ReconstructionGrid,
)
