"""The Fréchet distance, against SciPy and closed forms."""

import keras
import numpy as np
import pytest
from scipy import linalg

from keras_vq.metrics import FrechetDistance, SqueezeNetFeatures


class PixelMeans:
    """Six features: the means of the channels of an image's two halves."""

    size = 6

    def __call__(self, images):
        ops = keras.ops
        halves = (images[:, :4], images[:, 4:])
        return ops.concatenate([ops.mean(h, (1, 2)) for h in halves], -1)

    @staticmethod
    def of(images):
        """The same with NumPy, of whole levels."""
        x = np.clip(np.rint((images.astype("float64") + 1) * 127.5), 0, 255)
        x = x / 127.5 - 1
        halves = (x[:, :4], x[:, 4:])
        return np.concatenate([h.mean((1, 2)) for h in halves], -1)


def reference(a, b):
    """Fréchet distance of rows of features, by SciPy's matrix root."""
    covariances = [np.cov(x, rowvar=False) for x in (a, b)]
    root = linalg.sqrtm(covariances[0] @ covariances[1])
    return (
        np.sum((a.mean(0) - b.mean(0)) ** 2)
        + np.trace(covariances[0] + covariances[1])
        - 2 * np.trace(root).real
    )


def pictures(count, seed, shift=0.0, spread=0.3):
    rng = np.random.default_rng(seed)
    x = rng.normal(shift, spread, (count, 1, 1, 3))
    x = x + rng.normal(0, 0.2, (count, 8, 8, 3))
    return x.astype("float32")


def measured(pairs, **kwargs):
    metric = FrechetDistance(PixelMeans(), **kwargs)
    for images, others in pairs:
        metric.update_state(images, others)
    return float(metric.result())


def test_equals_scipy():
    a, b = pictures(60, 0), pictures(60, 1, shift=0.2, spread=0.1)
    expected = reference(PixelMeans.of(a), PixelMeans.of(b))
    assert expected > 0.05
    np.testing.assert_allclose(measured([(a, b)]), expected, rtol=1e-5)


def test_batches_add_up():
    a, b = pictures(60, 0), pictures(60, 1, shift=0.2)
    once = measured([(a, b)])
    parts = [(a[:7], b[:7]), (a[7:30], b[7:30]), (a[30:], b[30:])]
    np.testing.assert_allclose(measured(parts), once, rtol=1e-6)


def test_large_offsets_do_not_drown_the_differences():
    """Raw moments in float32 would be off by a tenth and more."""
    a, b = (pictures(400, seed, 0.9, 0.001) for seed in (0, 1))
    expected = reference(PixelMeans.of(a), PixelMeans.of(b))
    np.testing.assert_allclose(measured([(a, b)]), expected, rtol=1e-3)


def test_identical_sets_have_no_distance():
    a = pictures(50, 0)
    assert measured([(a, a)]) < 1e-9
    assert measured([]) == 0
    # A permutation is the same set.
    np.testing.assert_allclose(measured([(a, a[::-1])]), 0, atol=1e-9)


def test_closed_form_of_shifted_sets():
    """Equal covariances: only the means count."""
    a = np.clip(pictures(50, 0, spread=0.1), -0.5, 0.5)
    b = a + np.float32(16 / 127.5)
    expected = 6 * (16 / 127.5) ** 2
    np.testing.assert_allclose(
        measured([(a, b)], quantize=False), expected, rtol=1e-4
    )


def test_fewer_features_than_images_are_no_condition():
    """Covariances of rank 3 of 6: no negative or complex root."""
    a, b = pictures(4, 0), pictures(4, 1)
    expected = reference(PixelMeans.of(a), PixelMeans.of(b))
    np.testing.assert_allclose(
        measured([(a, b)]), expected, rtol=1e-4, atol=1e-6
    )


def test_sample_weights_leave_images_out():
    a, b = pictures(30, 0), pictures(30, 1, shift=0.2)
    metric = FrechetDistance(PixelMeans())
    spoilt = a.copy()
    spoilt[20:] = np.nan
    weights = np.arange(30) < 20
    metric.update_state(spoilt, b, sample_weight=weights)
    expected = measured([(a[:20], b[:20])])
    np.testing.assert_allclose(float(metric.result()), expected, rtol=1e-6)


def test_value_ranges_give_the_same():
    a, b = pictures(30, 0), pictures(30, 1)
    levels = [np.clip((x + 1) * 127.5, 0, 255) for x in (a, b)]
    np.testing.assert_allclose(
        measured([levels], value_range=(0, 255)), measured([(a, b)]), rtol=1e-5
    )


def test_replicas_add_up(two_replicas):
    import tensorflow as tf

    a, b = pictures(32, 0), pictures(32, 1, shift=0.2)
    with two_replicas.scope():
        metric = FrechetDistance(PixelMeans())
    dataset = tf.data.Dataset.from_tensor_slices((a, b)).batch(16)
    dataset = two_replicas.experimental_distribute_dataset(dataset)

    @tf.function
    def step(batch):
        two_replicas.run(lambda x, y: metric.update_state(x, y), args=batch)

    for batch in dataset:
        step(batch)
    np.testing.assert_allclose(
        float(metric.result()), measured([(a, b)]), rtol=1e-6
    )


def test_it_forgets():
    a, b = pictures(30, 0), pictures(30, 1, shift=0.2)
    metric = FrechetDistance(PixelMeans())
    metric.update_state(b, a + 0.5)
    metric.reset_state()
    metric.update_state(a, b)
    np.testing.assert_allclose(float(metric.result()), measured([(a, b)]))


def test_compiled_sums_are_in_float64_too():
    """Sums in float32 would be off by a tenth and more."""
    model = keras.Sequential([keras.layers.Identity()])
    model.compile(loss="mse", metrics=[FrechetDistance(PixelMeans())])
    a, b = (pictures(400, seed, 0.9, 0.001) for seed in (0, 1))
    logs = model.evaluate(b, a, batch_size=40, verbose=0, return_dict=True)
    expected = reference(PixelMeans.of(a), PixelMeans.of(b))
    np.testing.assert_allclose(logs["frechet_distance"], expected, rtol=1e-3)


@pytest.mark.parametrize("features", [None, "squeeze", lambda images: images])
def test_features_must_say_their_size(features):
    with pytest.raises(ValueError, match="attribute `size`.*Received"):
        FrechetDistance(features)


@pytest.fixture(scope="module")
def trunk(data_dir):
    return data_dir / (
        "weights/squeezenet_v1.1_imagenet/"
        "squeezenet_weights_tf_dim_ordering_tf_kernels_notop.h5"
    )


def test_features_equal_torch(trunk):
    """SqueezeNet 1.1 of torch's layers, with the weights of the file."""
    features = SqueezeNetFeatures(trunk)
    rng = np.random.default_rng(0)
    images = rng.uniform(-1, 1, (2, 64, 48, 3)).astype("float32")
    found = keras.ops.convert_to_numpy(features(images))
    assert found.shape == (2, features.size)
    expected = _torch_features(images, trunk)
    assert np.abs(expected).max() > 1
    np.testing.assert_allclose(
        found, expected, atol=1e-4 * np.abs(expected).max()
    )


def _torch_features(images, path):
    import h5py

    torch = pytest.importorskip("torch", reason="compares with PyTorch")
    functional = torch.nn.functional
    with h5py.File(path, "r") as file:
        arrays = {}
        file.visititems(
            lambda name, item: (
                arrays.__setitem__(name, item[()])
                if isinstance(item, h5py.Dataset)
                else None
            )
        )

    def conv(x, layer, **kwargs):
        (kernel,) = (
            a for n, a in arrays.items() if n.startswith(layer) and a.ndim == 4
        )
        (bias,) = (
            a for n, a in arrays.items() if n.startswith(layer) and a.ndim == 1
        )
        kernel = torch.from_numpy(kernel).permute(3, 2, 0, 1)
        bias = torch.from_numpy(bias)
        return torch.relu(functional.conv2d(x, kernel, bias, **kwargs))

    # Caffe's networks take BGR from 0 to 255 minus these means.
    means = torch.tensor([103.939, 116.779, 123.68]).view(1, 3, 1, 1)
    x = torch.from_numpy(images).permute(0, 3, 1, 2).flip(1)
    x = conv((x + 1) * 127.5 - means, "conv1/", stride=2)
    for fire in range(2, 10):
        if fire in (2, 4, 6):
            x = functional.max_pool2d(x, 3, 2, ceil_mode=True)
        x = conv(x, f"fire{fire}/squeeze1x1/")
        x = torch.cat(
            [
                conv(x, f"fire{fire}/expand1x1/"),
                conv(x, f"fire{fire}/expand3x3/", padding=1),
            ],
            1,
        )
    return x.mean((2, 3)).numpy()


def test_features_are_saved_by_their_name(trunk):
    features = SqueezeNetFeatures(trunk)
    metric = FrechetDistance(features, quantize=False)
    again = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(metric)
    )
    assert again.quantize is False
    again.features.load()
    assert again.features.file == features.file


@pytest.mark.parametrize("shape", [(1, 16, 16, 3), (1, 32, 32, 4), (32, 32, 3)])
def test_features_refuse_other_images(shape, trunk):
    with pytest.raises(ValueError, match="at least 17 x 17.*Received"):
        SqueezeNetFeatures(trunk)(np.zeros(shape, "float32"))


def test_real_photographs_are_closer_than_blurred_ones(trunk, data_dir):
    """A blur is further from the images than whole levels of noise."""
    from keras_vq.data import from_folder

    dataset = from_folder(data_dir / "photos", image_size=64, batch_size=60)
    images = np.asarray(next(iter(dataset)))
    small = keras.ops.image.resize(images, (16, 16), antialias=True)
    blurred = keras.ops.image.resize(small, (64, 64))
    noise = np.random.default_rng(0).normal(0, 0.01, images.shape)
    features = SqueezeNetFeatures(trunk)
    results = []
    for others in (images + noise.astype("float32"), np.asarray(blurred)):
        metric = FrechetDistance(features)
        metric.update_state(images, others)
        results.append(float(metric.result()))
    assert 0 < 10 * results[0] < results[1]


def test_a_saved_metric_opens_its_file_when_it_is_used(tmp_path):
    features = SqueezeNetFeatures.from_config(
        {"trunk_weights": str(tmp_path / "gone.h5")}
    )
    metric = FrechetDistance(features)
    images = np.zeros((2, 32, 32, 3), "float32")
    with pytest.raises(FileNotFoundError, match="gone.h5"):
        metric.update_state(images, images)
