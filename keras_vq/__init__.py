"""Vector-quantized image models for Keras 3."""

from keras_vq import layers as layers
from keras_vq import losses as losses
from keras_vq import metrics as metrics
from keras_vq import models as models
from keras_vq.version import __version__ as __version__
