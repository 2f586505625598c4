"""Quantizers: one class a file on one base."""

from keras_vq.layers.quantizers.base import Quantizer as Quantizer
from keras_vq.layers.quantizers.ema_vector_quantizer import (
    EMAVectorQuantizer as EMAVectorQuantizer,
)
from keras_vq.layers.quantizers.hierarchical import (
    HierarchicalQuantizer as HierarchicalQuantizer,
)
from keras_vq.layers.quantizers.nearest_code import (
    nearest_code as nearest_code,
)
from keras_vq.layers.quantizers.slots import (
    statistics_slot as statistics_slot,
)
from keras_vq.layers.quantizers.vector_quantizer import (
    VectorQuantizer as VectorQuantizer,
)
