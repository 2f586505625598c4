"""LPIPS with its published weights, where no PyTorch is installed."""

import numpy as np
import pytest
import tensorflow as tf
from skimage.io import imread

import keras_vq
from keras_vq.losses import LPIPS
from keras_vq.training.evaluation import published_files

# What `tests/losses/torch_lpips.py` gives in float64 for `_pairs`, with the
# published linear layers and Caffe's trunk, whose arrays `caffe_arrays` of
# `test_lpips.py` reads: each distance, and the norm of its gradient by the
# second image. Nothing of ours had a part in them.
DISTANCES = (0.00304325746, 0.153954235)
SLOPES = (0.00989923422, 0.0602031829)


def _pairs():
    """A pair that differs a little and one that has nothing in common."""
    # Unlike those of the newer generator, its numbers never change.
    rng = np.random.RandomState(0)
    images, noise = rng.uniform(-1, 1, (2, 61, 64, 3)), []
    for image, share in zip(images, (0.1, 1.0), strict=True):
        other = rng.uniform(-1, 1, image.shape)
        noise.append((1 - share) * image + share * other)
    return images.astype("float32"), np.stack(noise).astype("float32")


@pytest.fixture(autouse=True)
def published(data_dir, lpips_home):
    """The published weights are found by the name of the trunk.

    After `lpips_home`, which hides every other folder.
    """
    if not (data_dir / "weights/lpips_v0.1/squeeze.pth").exists():
        pytest.skip("needs the linear layers of LPIPS")
    with published_files(data_dir):
        yield


def test_distances_and_gradients():
    images, others = map(tf.constant, _pairs())
    distance = LPIPS("squeeze")
    with tf.GradientTape() as tape:
        tape.watch(others)
        values = distance(images, others)
    np.testing.assert_allclose(values, DISTANCES, rtol=1e-5)
    gradient = tape.gradient(values, others).numpy()
    slopes = np.linalg.norm(gradient.reshape(2, -1), axis=1)
    np.testing.assert_allclose(slopes, SLOPES, rtol=1e-4)


def test_metric():
    images, others = _pairs()
    metric = keras_vq.metrics.LPIPS("squeeze", quantize=False)
    # Batches of unlike size: the mean is that of the images.
    metric.update_state(images, others)
    metric.update_state(images[:1], others[:1])
    want = (2 * DISTANCES[0] + DISTANCES[1]) / 3
    np.testing.assert_allclose(metric.result(), want, rtol=1e-5)


def test_examples_of_the_lpips_repository(data_dir):
    """Its README says that ex_p1 is nearer to ex_ref than ex_p0 is."""
    folder = data_dir / "weights/lpips_v0.1"
    images = {
        name: imread(folder / f"ex_{name}.png")[None, ..., :3] / 127.5 - 1.0
        for name in ("ref", "p0", "p1")
    }
    distance = LPIPS("squeeze")
    far, near = (
        float(distance(images["ref"], images[name])[0]) for name in ("p0", "p1")
    )
    assert 0.0 < near < far
