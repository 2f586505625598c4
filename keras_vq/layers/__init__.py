"""Quantizers, and the blocks that the networks are made of."""

from keras_vq.layers.convolution import Conv2DTranspose as Conv2DTranspose
from keras_vq.layers.convolution import PaddedConv2D as PaddedConv2D
from keras_vq.layers.normalization import (
    BatchNormalization as BatchNormalization,
)
from keras_vq.layers.quantizers import (
    EMAVectorQuantizer as EMAVectorQuantizer,
)
from keras_vq.layers.quantizers import (
    HierarchicalQuantizer as HierarchicalQuantizer,
)
from keras_vq.layers.quantizers import Quantizer as Quantizer
from keras_vq.layers.quantizers import VectorQuantizer as VectorQuantizer
from keras_vq.layers.quantizers import nearest_code as nearest_code
from keras_vq.layers.quantizers import statistics_slot as statistics_slot
from keras_vq.layers.residual import ResidualBlock as ResidualBlock
