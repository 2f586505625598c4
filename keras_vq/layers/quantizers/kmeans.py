"""k-means clustering, for codebooks that start where the data is."""

import numpy as np
from keras import ops

from keras_vq.layers.quantizers.nearest_code import nearest_code


def sample_rows(vectors: np.ndarray, count: int, seed: int) -> np.ndarray:
    """`count` rows of `vectors`, different ones as long as there are enough.

    With fewer vectors than `count` each is taken about equally often, and the
    repetitions are moved by 1 % of the data's standard deviation, so that no
    two codes start alike (of two equal codes the second is never used).

    Args:
        vectors: Array of shape `(n, dim)` with `n >= 1`.
        count: Integer, number of rows wanted.
        seed: Integer seed of the choice.

    Returns:
        Array of shape `(count, dim)`.
    """
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(vectors))
    repeats = -(-count // len(vectors))
    rows = vectors[np.tile(order, repeats)[:count]]
    if repeats > 1:
        scale = 0.01 * (vectors.std() + 1e-6)
        noise = rng.normal(size=rows.shape, scale=scale)
        rows = rows + np.where(np.arange(count)[:, None] < len(order), 0, noise)
    return rows.astype("float32")


def kmeans(
    vectors: np.ndarray,
    count: int,
    iterations: int = 20,
    seed: int = 0,
    spherical: bool = False,
) -> np.ndarray:
    """Lloyd's k-means, started from random data points.

    A cluster that runs empty is moved to a random data point, so that every
    center that is returned was near some data.

    Args:
        vectors: float32 array of shape `(n, dim)` with `n >= 1`.
        count: Integer, number of clusters.
        iterations: Integer, number of passes over the data.
        seed: Integer seed.
        spherical: Whether centers are scaled to unit length after each pass
            (for vectors that are).

    Returns:
        float32 array of shape `(count, dim)`, the cluster centers.
    """
    centers = sample_rows(vectors, count, seed)
    if len(vectors) <= count:
        return centers
    for iteration in range(iterations):
        nearest = ops.convert_to_numpy(nearest_code(vectors, centers))
        sizes = np.bincount(nearest, minlength=count)
        sums = np.stack(
            [np.bincount(nearest, column, count) for column in vectors.T],
            axis=1,
        )
        centers = sums / np.maximum(sizes, 1)[:, None]
        empty = sizes == 0
        if empty.any():
            centers[empty] = sample_rows(
                vectors, int(empty.sum()), seed + iteration + 1
            )
        if spherical:
            lengths = np.linalg.norm(centers, axis=1, keepdims=True)
            centers = centers / np.maximum(lengths, 1e-12)
        centers = centers.astype("float32")
    return centers
