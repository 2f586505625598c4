"""From values of single images to those of a batch."""

from keras import ops


def batch_mean(values):
    """Mean over a batch; 0 for one without images.

    Args:
        values: Float tensor of shape `(batch,)`.

    Returns:
        float32 scalar.
    """
    values = ops.cast(values, "float32")
    count = ops.cast(ops.maximum(ops.shape(values)[0], 1), "float32")
    return ops.sum(values) / count
