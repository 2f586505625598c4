"""NumPy's resampling beside TensorFlow's, which is made by others."""

import platform

import numpy as np
import pytest
from pictures import noise

from keras_vq.data.resampling import KERNELS, resample

SIZES = [
    ((20, 31), (12, 14)),
    ((64, 64), (32, 32)),
    ((37, 53), (80, 91)),
    ((100, 70), (33, 23)),
    ((9, 1), (64, 5)),
]


@pytest.mark.parametrize("interpolation", KERNELS)
@pytest.mark.parametrize("before, after", SIZES)
def test_the_bits_are_those_of_tensorflow(before, after, interpolation):
    tf = pytest.importorskip("tensorflow")
    image = noise(*before)
    expected = tf.raw_ops.ScaleAndTranslate(
        images=image[None],
        size=np.array(after, np.int32),
        scale=np.array(
            [a / b for a, b in zip(after, before, strict=True)], np.float32
        ),
        translation=np.zeros(2, np.float32),
        kernel_type=KERNELS[interpolation].name,
        antialias=True,
    ).numpy()[0]
    result = resample(image, after, interpolation)
    assert result.dtype == np.float32
    # Processors that multiply and add in one operation round once less.
    exact = interpolation != "lanczos" and platform.machine() == "x86_64"
    np.testing.assert_allclose(
        result, expected, rtol=0, atol=0 if exact else 5e-4
    )


@pytest.mark.parametrize("interpolation", KERNELS)
def test_a_constant_stays_one(interpolation):
    image = np.full((17, 23, 3), 200, np.uint8)
    for size in ((5, 7), (40, 23)):
        result = resample(image, size, interpolation)
        assert result.shape == (*size, 3)
        np.testing.assert_allclose(result, 200, rtol=1e-5)
