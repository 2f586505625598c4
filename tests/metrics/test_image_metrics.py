import importlib.util
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import skimage.data
import tensorflow as tf
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from keras_vq.metrics import PSNR, SSIM

METRICS = [PSNR, SSIM]


def noisy(images, seed=0):
    """Uint8 reconstructions, from nearly equal to hardly recognisable."""
    rng = np.random.default_rng(seed)
    sigma = np.geomspace(0.5, 60, len(images)).reshape(-1, 1, 1, 1)
    noise = sigma * rng.standard_normal(images.shape)
    return np.clip(np.round(images + noise), 0, 255).astype("uint8")


def random_images(n=25, side=24, channels=3, seed=0):
    rng = np.random.default_rng(seed)
    shape = (n, side, side + 5, channels)
    return rng.integers(0, 256, shape, dtype="uint8")


def real_images(n=25, side=40):
    photo = skimage.data.astronaut()
    rng = np.random.default_rng(0)
    corners = rng.integers(0, photo.shape[0] - side, (n, 2))
    return np.stack([photo[y : y + side, x : x + side] for y, x in corners])


def reference(cls, images, others):
    """One value per image, by scikit-image."""
    if cls is PSNR:
        return [
            peak_signal_noise_ratio(a, b, data_range=255)
            for a, b in zip(images, others, strict=True)
        ]
    return [
        structural_similarity(
            a,
            b,
            channel_axis=-1,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            data_range=255,
        )
        for a, b in zip(images, others, strict=True)
    ]


def as_range(images, low, high):
    if high == 255:
        return images
    scaled = images.astype("float32") / np.float32(255)
    return scaled if low == 0 else images.astype("float32") / 127.5 - 1


@pytest.mark.parametrize("cls,tolerance", [(PSNR, 1e-4), (SSIM, 1e-5)])
@pytest.mark.parametrize("make", [random_images, real_images])
def test_every_image_agrees_with_scikit_image(cls, tolerance, make):
    images = make()
    others = noisy(images)
    want = reference(cls, images, others)
    metric = cls(value_range=(0, 255))
    got = metric.per_image(
        images.astype("float32"), others.astype("float32")
    ).numpy()
    assert np.abs(got - want).max() < tolerance
    metric.update_state(images, others)
    np.testing.assert_allclose(metric.result(), np.mean(want), rtol=1e-5)


@pytest.mark.parametrize("cls,tolerance", [(PSNR, 1e-4), (SSIM, 1e-5)])
def test_cifar_agrees_with_scikit_image(cls, tolerance, data_dir):
    with np.load(data_dir / "cifar10" / "lossless_eval.npz") as file:
        images = file["image"][:50]
    others = noisy(images)
    metric = cls()
    metric.update_state(as_range(images, -1, 1), as_range(others, -1, 1))
    want = np.mean(reference(cls, images, others))
    assert abs(float(metric.result()) - want) < tolerance


def test_ssim_of_large_bright_images():
    # Values near one at every pixel are what a float32 sum rounds worst.
    photo = np.stack([skimage.data.astronaut()[:256, :256]] * 4)
    images = np.clip(photo.astype("int32") + 120, 0, 255).astype("uint8")
    others = np.clip(images.astype("int32") - 1, 0, 255).astype("uint8")
    metric = SSIM(value_range=(0, 255))
    metric.update_state(images, others)
    want = np.mean(reference(SSIM, images, others))
    assert abs(float(metric.result()) - want) < 1e-5


@pytest.mark.parametrize("cls", METRICS)
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_value_ranges_are_bit_equal(cls, channels):
    images = random_images(channels=channels)
    others = noisy(images)
    results = []
    for value_range in [(0, 255), (0, 1), (-1, 1)]:
        metric = cls(value_range=value_range)
        metric.update_state(
            as_range(images, *value_range), as_range(others, *value_range)
        )
        results.append(metric.result().numpy().tobytes())
    assert len(set(results)) == 1


@pytest.mark.parametrize("offset", [1, 10, 255])
def test_psnr_closed_form(offset):
    images = np.zeros((2, 4, 4, 3), "uint8")
    metric = PSNR(value_range=(0, 255))
    metric.update_state(images, images + np.uint8(offset))
    want = 20 * np.log10(255 / offset)
    np.testing.assert_allclose(metric.result(), want, atol=1e-5)


def test_identical_images():
    images = as_range(real_images(3), -1, 1)
    psnr, ssim = PSNR(), SSIM()
    psnr.update_state(images, images)
    ssim.update_state(images, images)
    np.testing.assert_allclose(psnr.result(), 100.0, rtol=1e-6)
    assert float(ssim.result()) == 1.0
    capped = PSNR(max_db=60.0)
    capped.update_state(images, images)
    np.testing.assert_allclose(capped.result(), 60.0, rtol=1e-6)


def test_the_mean_is_over_images_and_not_over_errors():
    images = real_images(8)
    others = noisy(images)
    metric = PSNR(value_range=(0, 255))
    for size in (slice(0, 5), slice(5, 8)):
        metric.update_state(images[size], others[size])
    want = np.mean(reference(PSNR, images, others))
    pooled = peak_signal_noise_ratio(images, others, data_range=255)
    assert abs(want - pooled) > 1
    assert abs(float(metric.result()) - want) < 1e-4


def test_rounding_and_clipping():
    images = np.zeros((1, 4, 4, 1), "float32")
    metric = PSNR(value_range=(0, 255))
    metric.update_state(images, images + 0.4)
    assert float(metric.result()) == pytest.approx(100.0)
    metric.reset_state()
    metric.update_state(images, images - 9.0)
    assert float(metric.result()) == pytest.approx(100.0)
    raw = PSNR(value_range=(0, 255), quantize=False)
    raw.update_state(images, images + 0.4)
    assert float(raw.result()) == pytest.approx(20 * np.log10(255 / 0.4))


@pytest.mark.parametrize("cls", METRICS)
@pytest.mark.parametrize("jit", [False, True])
def test_graph_and_xla_with_weights(cls, jit):
    images = real_images(6, side=16)
    others = noisy(images)
    weights = np.array([1, 0, 2, 1, 0, 0.5], "float32")
    metric = cls(value_range=(0, 255))
    update = tf.function(metric.update_state, jit_compile=jit)
    update(images, others, weights)
    update(images, others, weights[:, None])
    want = np.average(reference(cls, images, others), weights=weights)
    np.testing.assert_allclose(metric.result(), want, rtol=1e-5)


@pytest.mark.parametrize("cls", METRICS)
def test_unknown_sizes_in_a_graph(cls):
    images = real_images(4, side=16)
    others = noisy(images)
    metric = cls(value_range=(0, 255))
    spec = tf.TensorSpec((None, None, None, None), "uint8")
    tf.function(metric.update_state, input_signature=[spec] * 2)(images, others)
    want = np.mean(reference(cls, images, others))
    np.testing.assert_allclose(metric.result(), want, rtol=1e-5)


@pytest.mark.parametrize("cls", METRICS)
def test_empty_batches_give_zero_and_count_for_nothing(cls):
    images = real_images(3, side=12)
    metric = cls(value_range=(0, 255))
    assert float(metric.result()) == 0.0
    metric.update_state(images[:0], images[:0])
    assert float(metric.result()) == 0.0
    metric.update_state(images, noisy(images))
    want = float(metric.result())
    metric.update_state(images[:0], images[:0])
    assert float(metric.result()) == want


@pytest.mark.parametrize("cls", METRICS)
def test_evaluate_over_replicas_equals_one_device(cls, two_replicas):
    images = as_range(real_images(13, side=16), -1, 1)
    others = as_range(noisy(real_images(13, side=16)), -1, 1)

    def evaluate():
        model = keras.Sequential(
            [keras.Input((16, 16, 3)), keras.layers.Identity()]
        )
        model.compile(loss="mse", metrics=[cls()])
        # The last batch has one image, so one replica gets none.
        scores = model.evaluate(
            images, others, batch_size=4, verbose=0, return_dict=True
        )
        return scores[cls.__name__.lower()]

    with two_replicas.scope():
        mirrored = evaluate()
    want = np.mean(
        reference(
            cls,
            real_images(13, side=16),
            noisy(real_images(13, side=16)),
        )
    )
    np.testing.assert_allclose(mirrored, evaluate(), rtol=1e-6)
    np.testing.assert_allclose(mirrored, want, rtol=1e-5)


@pytest.mark.parametrize("cls", METRICS)
@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_half_precision_reconstructions(cls, policy, dtype_policy):
    dtype_policy(policy)
    images = real_images(4, side=16)
    half = tf.cast(as_range(noisy(images), -1, 1), policy[len("mixed_") :])
    metric = cls()
    metric.update_state(as_range(images, -1, 1), half)
    assert {v.dtype for v in metric.variables} == {"float32"}
    levels = (tf.cast(half, "float64").numpy() + 1) * 127.5
    others = np.clip(np.round(levels), 0, 255).astype("uint8")
    want = np.mean(reference(cls, images, others))
    np.testing.assert_allclose(metric.result(), want, rtol=1e-3)


@pytest.mark.parametrize("cls", METRICS)
def test_configuration(cls):
    metric = cls(value_range=(0, 1), quantize=False, name="mine")
    copy = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(metric)
    )
    assert type(copy) is cls
    assert copy.get_config() == metric.get_config()
    assert copy.value_range == (0.0, 1.0)


def test_errors():
    images = np.zeros((2, 16, 16, 3), "float32")
    with pytest.raises(ValueError, match="11 x 11.*10"):
        SSIM().update_state(images[:, :10], images[:, :10])
    for cls in METRICS:
        with pytest.raises(ValueError, match="uint8.*value_range"):
            cls().update_state(images.astype("uint8"), images)
        with pytest.raises(ValueError, match="same shape.*Received"):
            cls().update_state(images, images[..., :1])
        with pytest.raises(ValueError, match="same shape.*Received"):
            cls().update_state(images[0], images[0])
        for bad in [(1, -1), (0,), 255, (0, np.inf), None]:
            with pytest.raises(ValueError, match="value_range"):
                cls(value_range=bad)


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_another_backend_gives_the_same_values(backend):
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    program = (
        "import numpy as np\n"
        "from keras_vq import metrics\n"
        "rng = np.random.default_rng(0)\n"
        "x = rng.integers(0, 256, (4, 16, 16, 3)).astype('uint8')\n"
        "y = x // 2\n"
        "for metric in (metrics.PSNR((0, 255)), metrics.SSIM((0, 255))):\n"
        "    metric.update_state(x, y)\n"
        "    print(float(metric.result()))\n"
        "used = metrics.CodebookPerplexity(256)\n"
        "used.update_state(x.astype('int32'))\n"
        "print(float(used.result()))\n"
    )
    here = os.path.dirname(os.path.abspath(__file__))
    lines = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "KERAS_BACKEND": backend},
        cwd=os.path.dirname(os.path.dirname(here)),
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (4, 16, 16, 3)).astype("uint8")
    want = [np.mean(reference(cls, images, images // 2)) for cls in METRICS]
    counts = np.bincount(images.ravel(), minlength=256) / images.size
    want.append(np.exp(-np.sum(counts * np.log(counts))))
    np.testing.assert_allclose([float(x) for x in lines], want, rtol=1e-5)
