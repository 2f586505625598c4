"""Pipelines from files or arrays to batches in [-1, 1]."""

from keras_vq.data.bad_examples import named_errors
from keras_vq.data.decode import decode_image
from keras_vq.data.errors import ImageError, TooManyBadImagesError
from keras_vq.data.options import Options
from keras_vq.data.pipeline import Pipeline, pipeline_of
from keras_vq.data.readers import (
    from_array_record,
    from_arrays,
    from_cifar10,
    from_folder,
    from_idx,
    from_tfds,
    from_tfrecord,
)
from keras_vq.data.resize import resize_image
from keras_vq.data.sources import ImageSource

__all__ = [
    "ImageError",
    "ImageSource",
    "Options",
    "Pipeline",
    "TooManyBadImagesError",
    "decode_image",
    "from_array_record",
    "from_arrays",
    "from_cifar10",
    "from_folder",
    "from_idx",
    "from_tfds",
    "from_tfrecord",
    "named_errors",
    "pipeline_of",
    "resize_image",
]
