"""3x3 convolutions whose kernels have a faster gradient."""

from keras import backend

from keras_vq.layers.processor import (
    tensorflow_on_processor,
    vectors_are_of_avx2,
)

# From as many channels and positions it was measured to be faster.
_MIN_CHANNELS = 64
_MIN_POSITIONS = 64 * 64
# As many filters have fewer numbers under the nine taps than channels.
_FEW_FILTERS = 7


def is_faster(inputs, kernel) -> bool:
    """Whether `convolution` trains faster here than TensorFlow's kernels.

    Their gradient of the kernel is made for processors with AVX-512. With AVX2
    it takes twice as long as the convolution, through oneDNN up to six times,
    and products of matrices take as long as the convolution.

    Args:
        inputs: Tensor of shape `(batch, height, width, channels)`.
        kernel: Tensor of shape `(3, 3, channels, filters)`.
    """
    _, height, width, channels = inputs.shape
    return (
        tensorflow_on_processor()
        and vectors_are_of_avx2()
        and None not in (height, width)
        and height * width >= _MIN_POSITIONS
        and channels >= _MIN_CHANNELS
        and not _FEW_FILTERS < kernel.shape[-1] < _MIN_CHANNELS
        and backend.standardize_dtype(inputs.dtype) == "float32"
    )


def convolution(inputs, kernel):
    """3x3 convolution, strides of 1, "same" padding, under TensorFlow.

    Args:
        inputs: Tensor of shape `(batch, height, width, channels)`.
        kernel: Tensor of shape `(3, 3, channels, filters)`.

    Returns:
        Tensor of shape `(batch, height, width, filters)`.
    """
    import tensorflow as tf

    @tf.custom_gradient
    def function(inputs, kernel):
        few = kernel.shape[-1] <= _FEW_FILTERS

        def gradients(upstream):
            at_inputs = tf.nn.conv2d_transpose(
                upstream, kernel, tf.shape(inputs), 1, "SAME"
            )
            of_kernel = _by_patches if few else _by_rows
            return at_inputs, of_kernel(inputs, upstream)

        return tf.nn.conv2d(inputs, kernel, 1, "SAME"), gradients

    return function(inputs, tf.convert_to_tensor(kernel))


def _by_rows(inputs, upstream):
    """Nine products, each of the inputs moved to another position.

    In rows of padded images a position is moved by a slice of all rows, which
    TensorFlow takes without a copy.
    """
    import tensorflow as tf

    _, height, width, channels = inputs.shape
    filters, row = upstream.shape[-1], width + 2
    inputs = tf.pad(inputs, ((0, 0), (1, 1), (1, 1), (0, 0)))
    inputs = tf.reshape(inputs, (-1, channels))
    # Zeros where a position would be moved beyond its image.
    upstream = tf.pad(upstream, ((0, 0), (0, 2), (0, 2), (0, 0)))
    upstream = tf.reshape(upstream, (-1, filters))
    last = 2 * row + 2
    upstream = upstream[:-last]
    products = []
    for start in (v * row + h for v in range(3) for h in range(3)):
        moved = inputs[start : start - last or None]
        products.append(tf.matmul(moved, upstream, transpose_a=True))
    return tf.reshape(tf.stack(products), (3, 3, channels, filters))


def _by_patches(inputs, upstream):
    """One product, of the inputs and of what is around each position."""
    import tensorflow as tf

    channels, filters = inputs.shape[-1], upstream.shape[-1]
    patches = tf.image.extract_patches(
        upstream, (1, 3, 3, 1), (1, 1, 1, 1), (1, 1, 1, 1), "SAME"
    )
    product = tf.matmul(
        tf.reshape(inputs, (-1, channels)),
        tf.reshape(patches, (-1, 9 * filters)),
        transpose_a=True,
    )
    # Seen from the inputs, the taps are in the opposite order.
    product = tf.reshape(product, (channels, 3, 3, filters))[:, ::-1, ::-1]
    return tf.transpose(product, (1, 2, 0, 3))
