"""LPIPS: the distance of two images in the features of a trained network."""

import os

import keras
import numpy as np
from keras import ops

from keras_vq.convert.errors import LayoutError, UnavailableFileError
from keras_vq.convert.lpips import read_linear, read_trunk
from keras_vq.losses.lpips_files import find_weights, how_to_get
from keras_vq.losses.lpips_trunks import TRUNKS
from keras_vq.losses.reconstruction import checked_pair

# Under the root, where PyPI's `lpips` adds 1e-10 behind it: its gradient is
# infinite where all channels are zero. Features have norms far above 1e-6.
_EPSILON = 1e-12


@keras.saving.register_keras_serializable(package="keras_vq")
class LPIPS:
    """Learned perceptual distance of images, version 0.1 ("lin").

    Both images go through a network that was trained to recognise objects.
    The activations of several layers are normalised to unit length over the
    channels, subtracted and squared, weighted per channel by a layer that was
    fitted to human judgements, averaged over positions and summed over layers.
    0 for identical images. It is the arithmetic of PyPI's `lpips`, except that
    a small number is added under the root of the lengths, so that gradients
    are finite everywhere. There is no dropout: it is always in inference mode,
    in float32 whatever the dtype policy.

    Its weights are two published files. Those whose paths are not given are
    looked for by name, in the folders that the environment variable
    KERAS_VQ_LPIPS names and in `~/.keras/keras_vq/lpips`, and downloaded to
    the latter if they are nowhere; their SHA-256 is checked each time.

    It is no layer: its constants are in no model's `weights` and in none of
    its files. A `.keras` file of a model that is trained with it stores the
    trunk's name and the paths that were given, a preset the name alone. Where
    a model is read back, the files are opened by `load` or at the first call.

    Images of one channel are judged as grey ones. More than three have no
    defined colours; with `per_channel=True` every channel is judged as a grey
    image, and the result is the mean over channels.

    Args:
        trunk: `"vgg"` (VGG16, what VQGAN was trained with) or `"squeeze"`
            (SqueezeNet 1.1, about 40 times fewer operations).
        trunk_weights: Path of the trunk's weights, where they are not to be
            found by name: torchvision's file, a checkpoint of PyPI `lpips`
            or taming-transformers, or for `"squeeze"` the Keras h5 file
            converted from Caffe. The latter's weights are others, and so are
            its distances.
        linear_weights: Path of the linear layers of LPIPS v0.1, likewise.
        per_channel: bool. Whether to judge every channel by itself.

    Call arguments:
        images: Floats of shape (B, H, W, C) in [-1, 1]; at least 17 pixels
            high and wide (`"squeeze"`) or 16 (`"vgg"`).
        reconstruction: Of the same shape and range.

    Returns:
        float32 distances of shape (B,).

    Raises:
        ValueError: For images of other sizes, types or numbers of channels.
        UnavailableFileError: If a file is missing and cannot be downloaded,
            with a sentence where to get it and where to put it.
        ConversionError: If a file is not what it should be.

    Reference:
        Zhang et al., "The Unreasonable Effectiveness of Deep Features as a
        Perceptual Metric", CVPR 2018, section 3.

    Example:
    >>> distance = keras_vq.losses.LPIPS("squeeze")
    >>> distance(images, reconstruction).shape
    (8,)
    """

    # Arguments that name files of one machine: no preset keeps them.
    local_paths = ("trunk_weights", "linear_weights")

    def __init__(
        self,
        trunk: str = "vgg",
        trunk_weights: str | os.PathLike | None = None,
        linear_weights: str | os.PathLike | None = None,
        per_channel: bool = False,
    ):
        self._configure(trunk, trunk_weights, linear_weights, per_channel)
        self.load()

    def __call__(self, images, reconstruction):
        images, reconstruction = checked_pair(images, reconstruction)
        self.load()
        pair = [self._to_colour(x) for x in (images, reconstruction)]
        values = self._distance(*pair)
        if self.per_channel:
            values = ops.reshape(values, (-1, ops.shape(images)[-1]))
            return ops.mean(values, axis=-1)
        return values

    def get_config(self):
        return {
            "trunk": self.trunk,
            "trunk_weights": self.trunk_weights,
            "linear_weights": self.linear_weights,
            "per_channel": self.per_channel,
        }

    @classmethod
    def from_config(cls, config):
        # A model that was trained with it loads where the files are not.
        distance = cls.__new__(cls)
        distance._configure(**config)
        return distance

    @property
    def files(self) -> dict:
        """Paths of the files that were opened, by argument; empty before."""
        return dict(self._files)

    def load(self):
        """Opens the files, unless they were opened before.

        Whoever trains with it calls it first, so that what is wrong with a
        file is said before a step is compiled.

        Raises:
            ConversionError: As the constructor does.
        """
        if self._constants is not None:
            return
        files = {name: self._path(name) for name in self.local_paths}
        trunk = TRUNKS[self.trunk]
        try:
            linear = read_linear(files["linear_weights"], trunk.widths)
            arrays, scaling = read_trunk(
                files["trunk_weights"], trunk.convolutions
            )
        except LayoutError as error:
            raise LayoutError(
                f"These are no weights for trunk={self.trunk!r}. Give files of "
                f"this trunk, or the `trunk` of these files. {error}"
            ) from error
        shift, scale = (np.array(values, "float32") for values in scaling)
        constants = [shift, scale, *linear, *arrays]
        self._constants = [_constant(array) for array in constants]
        self._files = files

    def _configure(
        self,
        trunk="vgg",
        trunk_weights=None,
        linear_weights=None,
        per_channel=False,
    ):
        if trunk not in TRUNKS:
            raise ValueError(
                f"`trunk` must be one of {sorted(TRUNKS)}. Received: "
                f"trunk={trunk!r}"
            )
        self.trunk = trunk
        self.trunk_weights = trunk_weights and os.fspath(trunk_weights)
        self.linear_weights = linear_weights and os.fspath(linear_weights)
        self.per_channel = bool(per_channel)
        self._constants = None
        self._files = {}

    def _path(self, name):
        path = getattr(self, name)
        if not path:
            return find_weights(self.trunk, name)
        if not os.path.isfile(path):
            received = f"{name}={path!r}, which is no file."
            raise UnavailableFileError(how_to_get(self.trunk, received))
        return path

    def _distance(self, images, reconstruction):
        trunk = TRUNKS[self.trunk]
        shift, scale, *rest = map(ops.convert_to_tensor, self._constants)
        linear, arrays = rest[: len(trunk.widths)], rest[len(trunk.widths) :]
        # One after the other: in training no gradient goes to the originals.
        features = [
            trunk.features((x - shift) / scale, arrays)
            for x in (images, reconstruction)
        ]
        total = 0.0
        for weights, ours, theirs in zip(linear, *features, strict=True):
            squares = ops.square(_unit(ours) - _unit(theirs))
            total += ops.mean(ops.sum(squares * weights, -1), axis=(1, 2))
        return total

    def check_shape(self, shape):
        """Raises ValueError if it cannot judge images of this shape.

        Args:
            shape: `(batch, height, width, channels)`; None is any size.
        """
        shape = tuple(shape)
        small = TRUNKS[self.trunk].min_size
        if len(shape) != 4 or any(
            s is not None and s < small for s in shape[1:3]
        ):
            raise ValueError(
                f"Expected images of shape (batch, height, width, channels), "
                f"at least {small} x {small} pixels. Received: shape={shape}"
            )
        if not self.per_channel and shape[-1] not in (1, 3):
            raise ValueError(
                "LPIPS judges images of 3 channels (RGB) or 1 (grey). "
                f"Received: shape={shape}. Give it three of the channels, or "
                "use `per_channel=True`, the mean over channels as grey images."
            )

    def _to_colour(self, images):
        self.check_shape(images.shape)
        if self.per_channel:
            height, width, channels = ops.shape(images)[1:]
            images = ops.transpose(images, (0, 3, 1, 2))
            images = ops.reshape(images, (-1, height, width, 1))
        if images.shape[-1] == 1:
            images = ops.repeat(images, 3, axis=-1)
        return images


def _unit(features):
    squares = ops.sum(ops.square(features), axis=-1, keepdims=True)
    return features / ops.sqrt(squares + _EPSILON)


def _constant(array):
    """Puts an array where the computation is, once instead of at each call.

    TensorFlow's functions take such a tensor as an input: as a NumPy array it
    would be copied into every graph, 59 MB of it for VGG16.
    """
    if keras.config.backend() != "tensorflow":
        return array
    import tensorflow as tf

    with tf.init_scope():
        return tf.constant(array)
