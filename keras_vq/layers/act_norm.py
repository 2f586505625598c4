"""Activation normalization: scale and shift set once, from data."""

import keras
import numpy as np
from keras import ops


@keras.saving.register_keras_serializable(package="keras_vq")
class ActNorm(keras.layers.Layer):
    """A scale and a shift per channel that start from data, then are learned.

    `adapt` sets them so that each channel of the given batch comes out with
    mean 0 and standard deviation 1. From then on they are weights like any
    other: nothing depends on the batch, so training under several replicas,
    with gradient accumulation or one image at a time gives the same. Before
    `adapt` the layer changes nothing, and `initialized` is False.

    The start is a step of its own, not part of the first call, because a
    call may run compiled and on several replicas at once, where a variable
    cannot be set from the whole batch.

    Args:
        epsilon: Float, added to the standard deviation.
        **kwargs: Further arguments of `keras.layers.Layer`.

    Call arguments:
        inputs: Float tensor of shape `(batch, ..., channels)`.

    Returns:
        `scale * (inputs + loc)`.

    Reference:
        [Kingma and Dhariwal, 2018](https://arxiv.org/abs/1807.03039), section
        3.1.

    Example:
    ```python
    layer = ActNorm()
    layer.adapt(features)
    normalized = layer(features)
    ```
    """

    def __init__(self, epsilon: float = 1e-6, **kwargs):
        super().__init__(**kwargs)
        self.epsilon = epsilon

    def build(self, input_shape):
        shape = (input_shape[-1],)
        self.loc = self.add_weight(name="loc", shape=shape, initializer="zeros")
        self.scale = self.add_weight(
            name="scale", shape=shape, initializer="ones"
        )
        # A weight, so that a loaded layer is known to have its start values.
        self._initialized = self.add_weight(
            name="initialized",
            shape=(),
            initializer="zeros",
            trainable=False,
            dtype="float32",
            autocast=False,
        )

    @property
    def initialized(self) -> bool:
        """Whether scale and shift have their start values."""
        if not self.built:
            return False
        return bool(ops.convert_to_numpy(self._initialized))

    def call(self, inputs):
        return (inputs + self.loc) * self.scale

    def adapt(self, inputs):
        """Sets scale and shift from a batch.

        Call it before the first step, outside of any compiled function, with
        what the layer will be called on.

        Args:
            inputs: Float array or tensor of shape `(batch, ..., channels)`.

        Raises:
            ValueError: If there are fewer than two values per channel, or
                values that are not finite.
        """
        shape = tuple(np.shape(inputs))
        if not self.built:
            self.build(shape)
        values = ops.convert_to_numpy(ops.cast(inputs, "float32"))
        values = values.reshape(-1, shape[-1]).astype("float64")
        if len(values) < 2 or not np.isfinite(values).all():
            raise ValueError(
                f"ActNorm '{self.name}' starts from two or more finite values "
                f"of each channel. Received: shape {shape}"
                + (", with NaN or infinite values" if len(values) > 1 else "")
            )
        # The unbiased deviation, as the published networks take it.
        deviation = values.std(axis=0, ddof=1)
        self.loc.assign(-values.mean(axis=0))
        self.scale.assign(1.0 / (deviation + self.epsilon))
        self._initialized.assign(1.0)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {**super().get_config(), "epsilon": self.epsilon}
