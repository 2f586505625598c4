"""What quantizers compute of vectors and indices."""

import keras
from keras import ops


def check_indices(indices, codebook_size: int):
    """Raises ValueError if `indices` cannot be indices of a codebook."""
    if not keras.backend.standardize_dtype(indices.dtype).startswith(
        ("int", "uint")
    ):
        raise ValueError(
            f"Code indices must be integers in [0, {codebook_size}). "
            f"Received: dtype {indices.dtype}"
        )
    # `take` wraps or clips what is out of range without a word. Only eager
    # values can be looked at.
    try:
        values = ops.convert_to_numpy(indices)
    except Exception:
        return
    if values.size and (values.min() < 0 or values.max() >= codebook_size):
        raise ValueError(
            f"Code indices must lie in [0, {codebook_size}), the range of the "
            f"codebook. Received: values from {values.min()} to "
            f"{values.max()}. Do they belong to another model?"
        )


def check_mask(mask, shape):
    """Raises ValueError if `mask` is not one value a position."""
    # Another shape may broadcast, and the means would be wrong.
    sizes = tuple(mask.shape)
    if len(sizes) != len(shape) or any(
        a != b for a, b in zip(sizes, shape, strict=True) if None not in (a, b)
    ):
        raise ValueError(
            "The mask of a quantizer has a value for each position, shape "
            f"{tuple(shape)}. Received: shape {sizes}"
        )


def unit_length(vectors):
    """Vectors scaled to length 1; zeros stay zeros."""
    # The epsilon inside the root keeps the gradient at zero finite.
    squared = ops.sum(ops.square(vectors), axis=-1, keepdims=True)
    return vectors * ops.rsqrt(squared + 1e-12)


def squared_error(a, b):
    """Mean over the last axis of the squared difference."""
    return ops.mean(ops.square(a - b), axis=-1)


def mean_over_positions(error, mask):
    """Mean of `(batch, ...)`; 0 for an empty batch; see `Quantizer`."""
    if mask is not None:
        weights = ops.cast(mask, error.dtype)
        axes = tuple(range(1, len(error.shape)))
        valid = ops.maximum(ops.sum(weights, axis=axes), 1.0)
        # Padding may hold anything, and 0 * NaN is NaN.
        error = ops.where(weights > 0, error, 0.0)
        error = ops.sum(error, axis=axes) / valid
    size = ops.cast(ops.size(error), error.dtype)
    return ops.sum(error) / ops.maximum(size, 1.0)
