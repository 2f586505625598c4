"""PatchGAN, against PyTorch and against what is published of it."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from torch_discriminator import (
    as_keras,
    copy_to_torch,
    images_to_torch,
    parameters_in_order,
    patch_gan,
    torch,
)

from keras_vq.losses.adversarial import (
    get_adversarial_loss,
    r1_penalty,
)
from keras_vq.models.discriminators import Discriminator, PatchGAN

SMALL = {"filters": 4, "num_layers": 2}


def _images(shape=(3, 20, 17, 3), seed=0):
    rng = np.random.default_rng(seed)
    return rng.uniform(-1, 1, shape).astype("float32")


def _randomized(model, seed=0):
    """Every weight from a distribution wide enough to matter."""
    rng = np.random.default_rng(seed)
    for weight in model.trainable_weights:
        low, high = (0.5, 1.5) if weight.name in ("gamma", "scale") else (-1, 1)
        value = rng.uniform(low, high, weight.shape)
        if len(weight.shape) == 4:
            value *= np.sqrt(3 / np.prod(weight.shape[:3]))
        weight.assign(value)
    return model


def _close(got, want, tolerance=1e-4):
    got, want = np.asarray(got), np.asarray(want)
    assert got.shape == want.shape
    assert np.abs(got - want).max() <= tolerance * np.abs(want).max()


def _pair(normalization="batch", channels=3, layers=2, spectral=False):
    ours = PatchGAN(3, layers, channels, normalization, spectral)
    _randomized(ours)
    if spectral:
        ours.update()
    theirs = patch_gan(3, layers, channels, normalization, spectral)
    copy_to_torch(ours, theirs)
    return ours, theirs.train()


CASES = [
    ("batch", 3, 2, False),
    ("act", 1, 2, False),
    ("group", 5, 3, True),
    (None, 3, 1, False),
]


@pytest.mark.parametrize("case", CASES)
def test_logits_and_gradients_of_torch(case):
    """Odd sizes too, and an R1 penalty: gradients of gradients."""
    ours, theirs = _pair(*case)
    real = _images((2, 27, 30, case[1]))
    fake = _images(real.shape, seed=1)
    loss = get_adversarial_loss("hinge")
    x = tf.constant(real)

    with tf.GradientTape() as outer:
        with tf.GradientTape() as tape:
            tape.watch(x)
            real_logits = ours(x, training=True)
            score = tf.reduce_sum(tf.reduce_mean(real_logits, (1, 2, 3)))
        slopes = tape.gradient(score, x)
        fake_logits = ours(fake, training=True)
        total = tf.reduce_mean(
            loss.discriminator(real_logits, fake_logits)
            + loss.generator(fake_logits)
            + 10.0 * r1_penalty(slopes)
        )
    weights = ours.trainable_weights
    gradients = outer.gradient(total, [w.value for w in weights])

    if case[3]:
        # In training torch iterates before it divides; here `update` did.
        theirs.eval()
    x = images_to_torch(real).requires_grad_()
    torch_real = theirs.main(x)
    (torch_slopes,) = torch.autograd.grad(
        torch_real.mean((1, 2, 3)).sum(), x, create_graph=True
    )
    torch_fake = theirs.main(images_to_torch(fake))
    torch_total = (
        0.5 * (1 - torch_real).relu().mean()
        + 0.5 * (1 + torch_fake).relu().mean()
        - torch_fake.mean()
        + 5.0 * torch_slopes.square().sum((1, 2, 3)).mean()
    )
    torch_total.backward()

    _close(real_logits, torch_real.detach().numpy().transpose(0, 2, 3, 1))
    _close(slopes, torch_slopes.detach().numpy().transpose(0, 2, 3, 1))
    _close(total, torch_total.detach())
    wanted = [
        as_keras(parameter.grad)
        for _, parameter in _in_our_order(theirs, case[3])
    ]
    largest = max(np.abs(want).max() for want in wanted)
    for weight, got, want in zip(weights, gradients, wanted, strict=True):
        # Where the exact gradient is nothing, rounding is what is left.
        scale = max(np.abs(want).max(), 1e-3 * largest)
        error = np.abs(np.asarray(got) - want).max()
        assert error <= 1e-4 * scale, weight.path


def _in_our_order(network, spectral):
    named = list(network.named_parameters())
    if spectral:
        # `parametrizations.weight.original` comes after the bias.
        named.sort(
            key=lambda pair: (int(pair[0].split(".")[1]), "bias" in pair[0])
        )
    return named


@pytest.mark.parametrize("normalization", ["batch", "act"])
def test_order_of_weights_is_that_of_the_published_layout(normalization):
    ours, theirs = _pair(normalization, layers=3)
    wanted = parameters_in_order(theirs)
    for weight, want in zip(ours.trainable_weights, wanted, strict=True):
        np.testing.assert_array_equal(weight, want.astype("float32"))
    numbers = [i for i, layer in enumerate(ours.main) if layer.weights]
    assert numbers == [0, 2, 3, 5, 6, 8, 9, 11]


def test_inference_takes_the_moving_statistics():
    ours, theirs = _pair()
    for i in range(2):
        ours(_images(seed=i), training=True)
    copy_to_torch(ours, theirs)
    want = theirs.eval().main(images_to_torch(_images()))
    _close(ours(_images()), want.detach().numpy().transpose(0, 2, 3, 1))


def test_power_iteration_of_torch():
    ours, theirs = _pair(None, spectral=True)
    for weight in ours.trainable_weights:
        weight.assign(weight + 0.3 * _images(weight.shape))
    copy_to_torch(ours, theirs)
    for _ in range(3):
        ours.update()
        want = theirs.main(images_to_torch(_images()))
        got = ours(_images(), training=True)
        _close(got, want.detach().numpy().transpose(0, 2, 3, 1))


def test_spectral_norm_becomes_the_largest_singular_value():
    model = PatchGAN(4, 1, normalization=None, use_spectral_normalization=True)
    layer = model.main[0]
    # One direction stands out, so few iterations find it.
    rows, columns = _images((48,), seed=1), _images((4,), seed=2)
    matrix = 3 * np.outer(rows, columns) + 0.1 * _images((48, 4))
    layer.kernel.assign(matrix.reshape(layer.kernel.shape))
    for _ in range(5):
        model.update()
    sigma = np.asarray(layer.v) @ matrix @ np.asarray(layer.u)
    largest = np.linalg.svd(matrix, compute_uv=False)[0]
    np.testing.assert_allclose(sigma, largest, rtol=1e-5)


def test_start_from_data():
    ours, theirs = _pair("act")
    assert not ours.initialized
    ours.adapt(_images())
    assert ours.initialized
    x = images_to_torch(_images())
    for module in theirs.main:
        if hasattr(module, "start"):
            module.start(x)
        x = module(x)
    _close(ours(_images()), x.detach().numpy().transpose(0, 2, 3, 1))
    for weight, want in zip(
        ours.trainable_weights, parameters_in_order(theirs), strict=True
    ):
        _close(weight, want)
    batch = PatchGAN(**SMALL)
    before = batch.get_weights()
    batch.adapt(_images())
    assert batch.initialized
    for got, want in zip(batch.get_weights(), before, strict=True):
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize(
    "layers, count, patches", [(3, 2_765_633, 30), (2, 663_361, 62)]
)
def test_size_of_the_published_networks(layers, count, patches):
    model = PatchGAN(num_layers=layers)
    assert sum(np.prod(w.shape) for w in model.trainable_weights) == count
    logits = model(keras.Input((256, 256, 3)))
    assert logits.shape == (None, patches, patches, 1)


def test_start_values():
    weights = PatchGAN(num_layers=2).trainable_weights
    for weight in weights:
        mean, deviation = np.mean(weight), np.std(weight)
        if weight.name == "kernel":
            assert abs(mean) < 2e-3 and abs(deviation - 0.02) < 1e-3
        elif weight.name == "gamma":
            assert abs(mean - 1) < 6e-3 and abs(deviation - 0.02) < 5e-3
        else:
            np.testing.assert_array_equal(weight, 0)


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_minimum_size(layers):
    model = PatchGAN(4, layers, normalization="group")
    size = model.minimum_size
    assert model(_images((1, size, size, 3))).shape == (1, 1, 1, 1)
    with pytest.raises(ValueError, match=f"{size} x {size} pixels or more"):
        model(_images((1, size, size - 1, 3)))
    with pytest.raises(ValueError, match="smaller `num_layers`"):
        model.adapt(_images((1, size - 1, size, 3)))
    symbolic = model(keras.Input((None, None, 3)))
    assert symbolic.shape == (None, None, None, 1)
    with pytest.raises(ValueError, match="pixels or more"):
        model(keras.Input((size - 1, None, 3)))


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"normalization": "layer"}, "normalization='layer'"),
        ({"num_layers": 0}, "num_layers=0"),
        ({"filters": 2.5}, "filters=2.5"),
        ({"channels": True}, "channels=True"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        PatchGAN(**arguments)


def test_wrong_images():
    model = PatchGAN(**SMALL, normalization="act")
    with pytest.raises(ValueError, match="Received: dtype uint8"):
        model(np.zeros((1, 16, 16, 3), "uint8"))
    with pytest.raises(ValueError, match=r"Received: shape \(1, 16, 16, 1\)"):
        model(_images((1, 16, 16, 1)))
    with pytest.raises(ValueError, match="NaN or infinite"):
        model.adapt(np.full((1, 16, 16, 3), np.nan, "float32"))
    assert not model.initialized


@pytest.mark.parametrize("dtype", ["mixed_float16", "mixed_bfloat16"])
@pytest.mark.parametrize(
    "normalization, spectral",
    [("batch", False), ("group", True)],
)
def test_dtype_policies(dtype, normalization, spectral):
    exact = _randomized(PatchGAN(4, 2, 3, normalization, spectral))
    model = PatchGAN(4, 2, 3, normalization, spectral, dtype=dtype)
    for network in (exact, model):
        network.set_weights(exact.get_weights())
        network.adapt(_images())
        network.update()
    assert model.main[2].compute_dtype == dtype[6:]
    assert {w.dtype for w in model.weights} == {"float32"}
    logits = model(_images(), training=True)
    assert keras.backend.standardize_dtype(logits.dtype) == "float32"
    tolerance = 0.01 if dtype == "mixed_float16" else 0.08
    _close(logits, exact(_images(), training=True), tolerance)


@pytest.mark.parametrize(
    "normalization, spectral", [("batch", True), ("act", False)]
)
def test_configuration_and_file(tmp_path, normalization, spectral):
    model = PatchGAN(
        4, 2, 5, normalization, spectral, name="critic", dtype="mixed_float16"
    )
    assert isinstance(model, Discriminator)
    images = _images((2, 16, 16, 5))
    _randomized(model).adapt(images)
    model.update()
    model(images, training=True)
    again = PatchGAN.from_config(model.get_config())
    assert again.get_config() == model.get_config()
    model.save(tmp_path / "critic.keras")
    loaded = keras.saving.load_model(tmp_path / "critic.keras")
    assert loaded.get_config() == model.get_config()
    assert loaded.initialized
    for got, want in zip(loaded.weights, model.weights, strict=True):
        assert got.name == want.name
        np.testing.assert_array_equal(got, want)
    np.testing.assert_array_equal(loaded(images), model(images))


@pytest.mark.parametrize("at_start", [True, False])
def test_frozen(at_start):
    model = PatchGAN(
        2, 1, use_spectral_normalization=True, trainable=not at_start
    )
    model.trainable = False
    assert not model.trainable_weights
    before = model.get_weights()
    model.update()
    model(_images((1, 8, 8, 3)), training=True)
    for got, want in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(got, want)


def test_replicas_see_one_batch(two_replicas):
    """Logits, moving statistics and power iteration are those of one device."""
    single = _randomized(PatchGAN(**SMALL, use_spectral_normalization=True))
    with two_replicas.scope():
        model = PatchGAN(**SMALL, use_spectral_normalization=True)
        model.set_weights(single.get_weights())
    images = _images((4, 16, 16, 3))
    halves = two_replicas.experimental_distribute_values_from_function(
        lambda context: tf.constant(
            np.split(images, 2)[context.replica_id_in_sync_group]
        )
    )

    @tf.function
    def step(halves):
        logits = two_replicas.run(lambda x: model(x, training=True), (halves,))
        model.update()
        return logits

    logits = two_replicas.experimental_local_results(step(halves))
    _close(np.concatenate(logits), single(images, training=True))
    single.update()
    for got, want in zip(model.weights, single.weights, strict=True):
        copies = two_replicas.experimental_local_results(got.value)
        for copy in copies:
            np.testing.assert_allclose(copy, want, rtol=1e-4, atol=1e-6)
