"""The search for the nearest of many codes, on every backend."""

import keras
import numpy as np
from numpy_reference import nearest

from keras_vq.layers import nearest_code


def test_nearest_of_5000_codes():
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(300, 8)).astype("float32")
    codebook = rng.normal(size=(5_000, 8)).astype("float32")
    expected, margin = nearest(vectors, codebook)
    certain = margin > 1e-4
    assert certain.mean() > 0.95
    # Compiled, for batches of any size.
    layer = keras.layers.Lambda(
        lambda x: nearest_code(x, codebook), output_shape=()
    )
    model = keras.Sequential([keras.Input((8,)), layer])
    for indices in (
        keras.ops.convert_to_numpy(nearest_code(vectors, codebook)),
        model.predict(vectors, batch_size=128, verbose=0),
    ):
        np.testing.assert_array_equal(indices[certain], expected[certain])
