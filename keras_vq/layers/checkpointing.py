"""Gradient checkpointing: blocks that are computed anew for the gradient."""

import keras
from keras import ops

from keras_vq.layers.whole_image import current_tiles


def checkpointed(layer, function, inputs):
    """`function(inputs)`, computed anew in the backward pass if asked for.

    Args:
        layer: Keras layer whose weights `function` uses, and which has the
            attribute `gradient_checkpointing`.
        function: Function of one tensor that gives one tensor.
        inputs: Tensor.

    Returns:
        What `function` returns.
    """
    # Tiles have no backward pass, and take values out of the function.
    if not layer.gradient_checkpointing or current_tiles():
        return function(inputs)
    # The weights go in as tensors: gradients of variables that a function
    # only happens to use are lost or refused under some strategies.
    weights = layer.weights

    def stateless(inputs, *values):
        pairs = list(zip(weights, values, strict=True))
        with keras.StatelessScope(state_mapping=pairs):
            return function(inputs)

    values = [ops.convert_to_tensor(weight.value) for weight in weights]
    return keras.remat(stateless)(inputs, *values)


@keras.saving.register_keras_serializable(package="keras_vq")
class CheckpointedModel(keras.Model):
    """Functional model that can be computed anew in the backward pass.

    Args:
        inputs: The `keras.Input` of the model.
        outputs: Its one output.
        gradient_checkpointing: Whether it is computed anew.
        **kwargs: Further arguments of `keras.Model`.
    """

    def __init__(self, inputs, outputs, gradient_checkpointing=False, **kwargs):
        super().__init__(inputs=inputs, outputs=outputs, **kwargs)
        self.gradient_checkpointing = gradient_checkpointing

    def call(self, inputs, training=None, mask=None):
        def function(inputs):
            return super(CheckpointedModel, self).call(
                inputs, training=training, mask=mask
            )

        return checkpointed(self, function, inputs)
