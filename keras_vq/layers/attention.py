"""Attention between all positions of an image, in bounded memory."""

import keras
from keras import ops

from keras_vq.layers.checkpointing import checkpointed
from keras_vq.layers.convolution import PaddedConv2D
from keras_vq.layers.group_normalization import GroupNormalization
from keras_vq.layers.resampling import torch_initializer
from keras_vq.layers.whole_image import current_tiles

# Weights held at a time for each image: 2**22 float32 are 16 MiB. Up to 2,048
# positions (724 x 724 pixels at a factor of 16) are taken at once.
_MAX_WEIGHTS = 2**22


@keras.saving.register_keras_serializable(package="keras_vq")
class SpatialAttention(keras.layers.Layer):
    """Every position looks at all others; the result is added to the input.

    Group normalization, 1x1 convolutions to queries, keys and values, one
    head over all positions, a 1x1 convolution, added to the input. The
    softmax is taken in float32 whatever the dtype policy.

    Weights of attention grow with the fourth power of an image's side. Above
    2,048 positions the queries are taken in portions, in the backward pass
    too, so that memory grows with the second power only.

    Args:
        groups: Integer, groups of the normalization; divides the channels.
        gradient_checkpointing: Whether the backward pass computes the block
            anew, instead of keeping all of its images.
        **kwargs: Further arguments of `keras.layers.Layer`.

    Input shape: `(batch, height, width, channels)`.

    Output shape: that of the input.

    Reference:
        [Esser et al., 2021](https://arxiv.org/abs/2012.09841), appendix A.
    """

    def __init__(
        self, groups: int = 32, gradient_checkpointing: bool = False, **kwargs
    ):
        super().__init__(**kwargs)
        self.groups = groups
        self.gradient_checkpointing = gradient_checkpointing

    def build(self, input_shape):
        # A block that is loaded frozen is frozen before it is built.
        options = {"dtype": self.dtype_policy, "trainable": self.trainable}
        self.norm = GroupNormalization(self.groups, **options)
        self.norm.build(input_shape)
        for name in ("query", "key", "value", "projection"):
            layer = PaddedConv2D(
                input_shape[-1],
                1,
                kernel_initializer=torch_initializer(),
                name=name,
                **options,
            )
            layer.build(input_shape)
            setattr(self, name, layer)

    def call(self, inputs):
        return checkpointed(self, self._block, inputs)

    def _block(self, inputs):
        shape = ops.shape(inputs)
        positions = shape[1] * shape[2]
        x = self.norm(inputs)
        vectors = [
            ops.reshape(layer(x), (-1, positions, shape[3]))
            for layer in (self.query, self.key, self.value)
        ]
        if tiles := current_tiles():
            x = tiles.attend(attend, *vectors, shape[1:3])
        else:
            x = attend(*vectors)
        return ops.add(inputs, self.projection(ops.reshape(x, shape)))

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {
            **super().get_config(),
            "groups": self.groups,
            "gradient_checkpointing": self.gradient_checkpointing,
        }


def attend(query, key, value):
    """Attention of one head: `softmax(query key^T / sqrt(channels)) value`.

    Args:
        query: Tensor of shape `(batch, positions, channels)`.
        key: Tensor of the same dtype, and the same shape but for the number
            of positions.
        value: Tensor like `key`.

    Returns:
        Tensor like `query`.
    """
    if keras.backend.backend() == "torch":
        return _attend_at_once(query, key, value)
    counts = (query.shape[1], key.shape[1])
    if None not in counts and counts[0] * counts[1] <= _MAX_WEIGHTS:
        return _attend_at_once(query, key, value)
    return ops.custom_gradient(_attend_in_portions)(query, key, value)


def _attend_at_once(query, key, value):
    if keras.backend.backend() != "tensorflow":
        # One kernel, where the device has one for this many channels.
        return ops.squeeze(
            ops.dot_product_attention(
                *(ops.expand_dims(x, 2) for x in (query, key, value))
            ),
            2,
        )
    # TensorFlow has no such kernel, and heads cost it transpositions.
    return _average(query, key, value)


def _weights(query, key):
    """Softmax of the products, in float32 or better."""
    # Scaled first, because products of float16 overflow.
    query = query * query.shape[-1] ** -0.5
    logits = ops.matmul(query, _transposed(key))
    dtype = keras.backend.result_type(logits.dtype, "float32")
    return ops.softmax(ops.cast(logits, dtype), axis=-1)


def _average(query, key, value):
    weights = ops.cast(_weights(query, key), value.dtype)
    return ops.matmul(weights, value)


def _attend_in_portions(query, key, value):
    """The same; the function for `custom_gradient`."""
    rows = _rows(ops.shape(query)[1], ops.shape(key)[1])

    def forward(state, portion):
        return state, _average(portion[0], key, value)

    def backward(state, portion):
        query, upstream = portion
        weights = _weights(query, key)
        slope = ops.matmul(upstream, _transposed(value))
        slope = ops.cast(slope, weights.dtype)
        mean = ops.sum(weights * slope, axis=-1, keepdims=True)
        dlogits = weights * (slope - mean) * query.shape[-1] ** -0.5
        dlogits = ops.cast(dlogits, key.dtype)
        weights = ops.cast(weights, value.dtype)
        dkey = ops.matmul(_transposed(dlogits), query)
        dvalue = ops.matmul(_transposed(weights), upstream)
        # Many portions are added: in half precision they would get lost.
        state = [
            total + ops.cast(part, total.dtype)
            for total, part in zip(state, (dkey, dvalue), strict=True)
        ]
        return tuple(state), ops.matmul(dlogits, key)

    def gradient(*args, upstream=None):
        if upstream is None:
            (upstream,) = args
        dtype = keras.backend.result_type(key.dtype, "float32")
        state = tuple(ops.zeros_like(x, dtype=dtype) for x in (key, value))
        portions = (_portions(query, rows), _portions(upstream, rows))
        (dkey, dvalue), dquery = _fold(backward, state, portions)
        return (
            _joined(dquery, query),
            ops.cast(dkey, key.dtype),
            ops.cast(dvalue, value.dtype),
        )

    _, outputs = _fold(forward, (), (_portions(query, rows),))
    return _joined(outputs, query), gradient


def _transposed(x):
    return ops.transpose(x, (0, 2, 1))


def _portions(x, rows):
    """(batch, positions, channels) to (portions, batch, rows, channels)."""
    batch, count, channels = ops.shape(x)
    portions = (count + rows - 1) // rows
    # Zeros for upstream, so that the rows added have no gradient.
    x = ops.pad(x, ((0, 0), (0, portions * rows - count), (0, 0)))
    x = ops.reshape(x, (batch, portions, rows, channels))
    return ops.transpose(x, (1, 0, 2, 3))


def _joined(portions, like):
    """The inverse of `_portions`."""
    batch, count, channels = ops.shape(like)
    x = ops.transpose(portions, (1, 0, 2, 3))
    return ops.reshape(x, (batch, -1, channels))[:, :count]


def _rows(count, keys):
    """Queries of a portion."""
    if isinstance(count, int) and isinstance(keys, int):
        return min(max(_MAX_WEIGHTS // keys, 1), count)
    rows = ops.maximum(_MAX_WEIGHTS // ops.maximum(keys, 1), 1)
    return ops.minimum(rows, ops.maximum(count, 1))


def _fold(function, state, portions):
    """Calls `function` on each portion: (last state, all results)."""
    if keras.backend.backend() != "tensorflow":
        return ops.scan(function, state, portions)
    import tensorflow as tf

    count = ops.shape(portions[0])[0]
    results = tf.TensorArray(
        portions[0].dtype,
        size=count,
        element_shape=portions[0].shape[1:],
    )

    def step(i, state, results):
        state, result = function(state, [x[i] for x in portions])
        return i + 1, state, results.write(i, result)

    # One portion at a time: running several at once would undo the bound.
    _, state, results = tf.while_loop(
        lambda i, *_: i < count,
        step,
        (tf.constant(0), state, results),
        parallel_iterations=1,
    )
    return state, results.stack()
