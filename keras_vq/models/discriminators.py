"""Networks that tell images from reconstructions."""

import math
import numbers

import keras
from keras import layers, ops

from keras_vq.layers.act_norm import ActNorm
from keras_vq.layers.convolution import PaddedConv2D
from keras_vq.layers.group_normalization import GroupNormalization
from keras_vq.layers.normalization import BatchNormalization
from keras_vq.layers.spectral_convolution import SpectralConv2D
from keras_vq.models.images import check_images

_NORMALIZATIONS = ("batch", "act", "group", None)


class Discriminator(keras.Model):
    """Base of the discriminators that a VQGAN can be trained against.

    A subclass creates all of its variables in `__init__`, and its `call`
    takes images in [-1, 1] of shape `(batch, height, width, channels)` and
    gives float32 logits of shape `(batch, ...)`, one or many per image: the
    larger, the more real. A call assigns no variable of its own. What it
    keeps apart from gradients moves in `update`, and what starts from data
    starts in `adapt`.
    """

    @property
    def minimum_size(self) -> int:
        """Smallest height and width of an image that it can take."""
        return 1

    @property
    def initialized(self) -> bool:
        """Whether it has its start values; without, call `adapt` first."""
        return True

    def adapt(self, images):
        """Sets what starts from data, before the first step.

        Args:
            images: Float array or tensor of real images in [-1, 1], shape
                `(batch, height, width, channels)`.
        """

    def update(self):
        """Moves what does not learn by gradient.

        The trainer calls it once per step of the discriminator's optimizer,
        outside of the gradient tape.
        """


@keras.saving.register_keras_serializable(package="keras_vq")
class PatchGAN(Discriminator):
    """Discriminator of patches, pix2pix' and VQGAN's.

    4x4 convolutions, `num_layers` of them with strides of 2 and two without,
    give a map of logits, each of which sees one patch of the image (70x70
    pixels with 3 layers, 34x34 with 2). Weights and their order are those of
    the published VQGAN discriminators: `main[i]` is their `main.i`.

    Convolution kernels start from N(0, 0.02), the scales of batch
    normalization from N(1, 0.02).

    Args:
        filters: Integer, channels after the first convolution. They double
            with each following one, up to 8 times.
        num_layers: Integer, convolutions with strides of 2.
        channels: Integer, channels of an image.
        normalization: What follows each convolution but the first and the
            last. `"batch"`: batch normalization over all replicas (with
            gradient accumulation the statistics are those of a micro-batch);
            `"act"`: `keras_vq.layers.act_norm.ActNorm`, which starts from
            data in `adapt`; `"group"`: group normalization, of up to 32
            groups; None: nothing.
        use_spectral_normalization: Whether the kernels are divided by their
            largest singular values, which `update` follows.
        **kwargs: `name` and `dtype`.

    Call arguments:
        images: Float tensor in [-1, 1] of shape
            `(batch, height, width, channels)`.
        training: Whether batch normalization takes the statistics of the
            batch.

    Returns:
        float32 logits of shape `(batch, rows, columns, 1)`, with `rows =
        height // 2**num_layers - 2`: 30 x 30 at 256 pixels.

    Raises:
        ValueError: If an argument is none of these, or the images are no
            floats, have other channels, or are smaller than `minimum_size`.

    Reference:
        [Isola et al., 2017](https://arxiv.org/abs/1611.07004), section 3.2.2;
        [Esser et al., 2021](https://arxiv.org/abs/2012.09841).

    Example:
    ```python
    discriminator = PatchGAN()
    logits = discriminator(images)  # (batch, 30, 30, 1) at 256 pixels
    ```
    """

    def __init__(
        self,
        filters: int = 64,
        num_layers: int = 3,
        channels: int = 3,
        normalization: str | None = "batch",
        use_spectral_normalization: bool = False,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.filters = _positive("filters", filters)
        self.num_layers = _positive("num_layers", num_layers)
        self.channels = _positive("channels", channels)
        if normalization not in _NORMALIZATIONS:
            raise ValueError(
                f"`normalization` must be one of {_NORMALIZATIONS}. "
                f"Received: normalization={normalization!r}"
            )
        self.normalization = normalization
        self.use_spectral_normalization = bool(use_spectral_normalization)
        self.main = self._create_layers()
        # One by one: a layer that the model's call builds, builds in a graph.
        shape = (None, None, None, self.channels)
        for layer in self.main:
            layer.build(shape)
            shape = layer.compute_output_shape(shape)
        self(keras.Input(shape[1:3] + (self.channels,), dtype="float32"))

    # The network

    def _create_layers(self) -> list:
        # Without normalization the published layout counts no position for
        # it, so positions are those of the list in either case.
        stages = [self._conv(self.filters, strides=2), self._leaky_relu()]
        for n in range(1, self.num_layers + 1):
            filters = self.filters * min(2**n, 8)
            strides = 2 if n < self.num_layers else 1
            # Batch normalization would take a bias away again.
            bias = self.normalization != "batch"
            stages.append(self._conv(filters, strides=strides, use_bias=bias))
            if self.normalization is not None:
                stages.append(self._normalized(filters))
            stages.append(self._leaky_relu())
        return [*stages, self._conv(1)]

    def _conv(self, filters, **kwargs):
        cls = SpectralConv2D if self.use_spectral_normalization else None
        return (cls or PaddedConv2D)(
            filters,
            4,
            pad=1,
            kernel_initializer=keras.initializers.RandomNormal(stddev=0.02),
            **kwargs,
            **self._common(),
        )

    def _normalized(self, filters):
        if self.normalization == "act":
            return ActNorm(**self._common())
        if self.normalization == "group":
            return GroupNormalization(
                math.gcd(32, filters), epsilon=1e-5, **self._common()
            )
        return BatchNormalization(
            gamma_initializer=keras.initializers.RandomNormal(1.0, 0.02),
            **self._common(),
        )

    def _common(self) -> dict:
        return {"dtype": self.dtype_policy, "trainable": self.trainable}

    def _leaky_relu(self):
        return layers.LeakyReLU(negative_slope=0.2, **self._common())

    @property
    def minimum_size(self) -> int:
        """Smallest height and width of an image that it can take."""
        return 3 * 2**self.num_layers

    def call(self, images, training=None):
        self._check_images(images)
        x = images
        for layer in self.main:
            x = layer(x)
        return ops.cast(x, "float32")

    def compute_output_spec(self, images, training=None):
        # What a call does is not followed: JAX would, with made up sizes that
        # may be smaller than the smallest.
        self._check_images(images)
        shape = images.shape
        for layer in self.main:
            shape = layer.compute_output_shape(shape)
        return keras.KerasTensor(shape, "float32")

    def _check_images(self, images):
        check_images(images, self.channels, rank=4)
        sizes = images.shape[1:3]
        if any(n is not None and n < self.minimum_size for n in sizes):
            raise ValueError(
                f"A PatchGAN of {self.num_layers} layers takes images of "
                f"{self.minimum_size} x {self.minimum_size} pixels or more. "
                f"Received: shape {tuple(images.shape)}. Use larger images, "
                "or a smaller `num_layers`."
            )

    # What does not learn by gradient

    @property
    def initialized(self) -> bool:
        """Whether each `ActNorm` has its start values (see `adapt`)."""
        return all(layer.initialized for layer in self._of_kind(ActNorm))

    def adapt(self, images):
        """Starts `normalization="act"` from data; else there is nothing to do.

        Call it before the first step, outside of any compiled function, or
        again to start anew.

        Args:
            images: Float array or tensor of real images in [-1, 1], shape
                `(batch, height, width, channels)`. One batch is enough.

        Raises:
            ValueError: If the images are not such as a call takes, or not
                finite.
        """
        self._check_images(images)
        if self.normalization != "act":
            return
        x = ops.cast(images, self.compute_dtype)
        for layer in self.main:
            if isinstance(layer, ActNorm):
                layer.adapt(x)
            x = layer(x)

    def update(self):
        """Takes a step of spectral normalization's power iteration.

        The trainer calls it once per step of the discriminator's optimizer,
        outside of the gradient tape.
        """
        if not self.trainable:
            return
        for layer in self._of_kind(SpectralConv2D):
            layer.update()

    def _of_kind(self, kind) -> list:
        return [layer for layer in self.main if isinstance(layer, kind)]

    def get_config(self):
        return {
            **super().get_config(),
            "filters": self.filters,
            "num_layers": self.num_layers,
            "channels": self.channels,
            "normalization": self.normalization,
            "use_spectral_normalization": self.use_spectral_normalization,
        }


def _positive(name, value) -> int:
    whole = isinstance(value, numbers.Integral) and value is not True
    if not whole or value < 1:
        raise ValueError(
            f"`{name}` must be a positive integer. Received: {name}={value!r}"
        )
    return int(value)
