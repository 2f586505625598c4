"""What `compile` and `fit` take, refuse and warn about."""

import inspect
import warnings

import keras
import networks
import numpy as np
import pytest
import tensorflow as tf

from keras_vq.layers import EMAVectorQuantizer
from keras_vq.metrics import PSNR
from keras_vq.models import VQAutoencoder


def _model(**arguments):
    return VQAutoencoder(
        networks.encoder(),
        EMAVectorQuantizer(8, 4, **arguments),
        networks.decoder(),
    )


@pytest.fixture(scope="module")
def images():
    return networks.images(24, 8, 8, 3)


# compile


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"loss": "mse"}, "losses belong to the model"),
        ({"loss_weights": [1.0]}, "losses belong to the model"),
        ({"weight_ema": 1.0}, r"\(0, 1\).*Received: weight_ema=1.0"),
        ({"weight_ema": -0.5}, "Received: weight_ema=-0.5"),
        ({"accumulation_steps": 0}, "Received: accumulation_steps=0"),
        ({"accumulation_steps": 2.0}, "Received: accumulation_steps=2.0"),
        ({"clipnorm": 0}, "must be positive. Received: clipnorm=0"),
        ({"clipnorm": -1.0}, "Received: clipnorm=-1.0"),
    ],
)
def test_compile_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        _model().compile(**arguments)


@pytest.mark.parametrize(
    "name, value, instead",
    [
        ("gradient_accumulation_steps", 2, "accumulation_steps"),
        ("clipnorm", 1.0, "clipnorm"),
        ("global_clipnorm", 1.0, "clipnorm"),
        ("clipvalue", 1.0, "clipnorm"),
    ],
)
def test_optimizer_options_that_fail_on_replicas(
    name, value, instead, two_replicas
):
    with two_replicas.scope():
        model = _model()
        optimizer = keras.optimizers.Adam(**{name: value})
        message = rf"`{name}`.*compile\({instead}.*Received: {name}={value}"
        with pytest.raises(ValueError, match=message):
            model.compile(optimizer)
        with pytest.raises(ValueError, match=message):
            model.compile(keras.optimizers.LossScaleOptimizer(optimizer))
    # They are right on one device.
    _model().compile(keras.optimizers.Adam(**{name: value}))


def test_overwriting_average_fails_on_replicas(two_replicas):
    with two_replicas.scope():
        optimizer = keras.optimizers.Adam(
            use_ema=True, ema_overwrite_frequency=2
        )
        with pytest.raises(ValueError, match="weight_ema"):
            _model().compile(optimizer)


def test_several_steps_in_one_execution(two_replicas, images):
    with two_replicas.scope():
        with pytest.raises(ValueError, match="steps_per_execution=2"):
            _model().compile(steps_per_execution=2)
    model = _model()
    model.compile(steps_per_execution=2)
    model.fit(images, batch_size=8, verbose=0)
    assert int(model.steps) == 3


@pytest.mark.parametrize("steps", ["auto", 2.0, True])
def test_several_steps_that_are_no_number(steps):
    with pytest.raises(ValueError, match="must be a positive integer"):
        _model().compile(steps_per_execution=steps)


def test_distribution_of_keras(monkeypatch):
    monkeypatch.setattr(keras.distribution, "distribution", lambda: object())
    with pytest.raises(ValueError, match="no effect on the TensorFlow"):
        _model().compile()


def test_compile_again_keeps_the_optimizer(images):
    model = _model()
    optimizer = keras.optimizers.Adam()
    model.compile(optimizer)
    model.fit(images, batch_size=8, verbose=0)
    model.compile(optimizer, metrics=[PSNR()])
    history = model.fit(images, batch_size=8, verbose=0).history
    assert int(optimizer.iterations) == 6
    assert "psnr" in history


# fit


@pytest.mark.parametrize("name", ["sample_weight", "class_weight"])
def test_weights_of_examples(name, images):
    model = _model()
    model.compile()
    with pytest.raises(ValueError, match=f"`{name}` is not taken"):
        model.fit(images, **{name: np.ones(24)})


class _Weighted(keras.utils.PyDataset):
    """Batches whose images are weighted."""

    def __init__(self, images):
        super().__init__()
        self.images = images

    def __len__(self):
        return 3

    def __getitem__(self, index):
        part = self.images[8 * index : 8 * index + 8]
        return part, np.zeros(8), np.ones(8)


@pytest.mark.parametrize("kind", ["dataset", "sequence", "generator"])
@pytest.mark.parametrize("method", ["fit", "evaluate"])
def test_weights_of_examples_in_batches(kind, method, images):
    model = _model()
    model.compile()
    model.adapt(images)
    data = sequence = _Weighted(images)
    if kind == "dataset":
        arrays = (images, np.zeros(24), np.ones(24))
        data = tf.data.Dataset.from_tensor_slices(arrays).batch(8)
    if kind == "generator":
        data = (sequence[i] for i in range(3))
    with pytest.raises(ValueError, match="third element.* weights") as error:
        getattr(model, method)(data, verbose=0)
    assert "Received: a batch of 3 elements" in str(error.value)
    assert int(model.steps) == 0


def test_weights_of_examples_elsewhere(images):
    model = _model()
    model.compile()
    model.adapt(images)
    ones = np.ones(24)
    with pytest.raises(ValueError, match="not taken by `evaluate`"):
        model.evaluate(images, sample_weight=ones)
    with pytest.raises(ValueError, match="third element"):
        model.fit(images, validation_data=(images, ones, ones))
    for method in (model.train_on_batch, model.test_on_batch):
        with pytest.raises(ValueError, match="third element"):
            method(images, ones, sample_weight=ones)
    # Two elements are what Keras itself makes of the images alone.
    logs = model.test_on_batch(images, ones, return_dict=True)
    assert np.isfinite(logs["loss"])


def test_arguments_by_position(images):
    model = _model()
    model.compile()
    history = model.fit(images, None, 8, 2, 0)
    assert history.epoch == [0, 1]
    assert int(model.steps) == 6
    logs = model.evaluate(images, None, 8, 0, None, 2, None, True)
    assert np.isfinite(logs["loss"])
    assert (
        list(inspect.signature(model.fit).parameters)
        == list(inspect.signature(keras.Model.fit).parameters)[1:]
    )


@pytest.mark.parametrize(
    "low, high, message",
    [
        (0, 1, r"\[0, 1\]\?.*preprocess.*from 0"),
        (0, 255, r"outside of \[-1, 1\].*preprocess.*from 0 to 2"),
        (-127, 127, r"outside of \[-1, 1\].*from -127"),
        # Normalized for a classifier.
        (-2.1, 2.6, r"outside of \[-1, 1\].*from -2.1"),
    ],
)
def test_values_of_another_range(low, high, message, images):
    model = _model()
    model.compile()
    others = np.interp(images, (images.min(), images.max()), (low, high))
    with pytest.warns(UserWarning, match=message):
        model.fit(others.astype("float32"), batch_size=8, verbose=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        model.fit(images, batch_size=8, verbose=0)


def test_not_compiled(images):
    with pytest.raises(ValueError, match="compile"):
        _model().fit(images)


def _generator(images):
    for start in range(0, len(images), 8):
        yield (images[start : start + 8],)


def test_data_that_can_be_read_once(images):
    model = _model()
    model.compile()
    with pytest.raises(ValueError, match="adapt.*Received: generator"):
        model.fit(_generator(images), verbose=0)
    assert int(model.steps) == 0
    model.adapt(images)
    model.fit(_generator(images), verbose=0)
    assert int(model.steps) == -(-len(images) // 8)


@pytest.mark.parametrize("adapted", [False, True])
def test_data_without_batches(adapted, images):
    model = _model()
    model.compile()
    if adapted:
        model.adapt(images)
    for data in (
        tf.data.Dataset.from_tensor_slices(images).batch(8).take(0),
        _Sequence(images[:0]),
    ):
        with pytest.raises(ValueError, match="is empty.*without batches"):
            model.fit(data, verbose=0)


class _Endless(keras.utils.PyDataset):
    """Has no last batch."""

    num_batches = None

    def __init__(self, images):
        super().__init__()
        self.images = images

    def __getitem__(self, index):
        return (self.images,)


def test_endless_sequence(images):
    model = _model()
    model.compile()
    model.fit(_Endless(images), steps_per_epoch=2, verbose=0)
    assert int(model.steps) == 2


class _Sequence(keras.utils.PyDataset):
    def __init__(self, images):
        super().__init__()
        self.images = images

    def __len__(self):
        return len(self.images) // 8

    def __getitem__(self, index):
        part = self.images[8 * index : 8 * index + 8]
        return part, np.zeros(len(part))


def test_kinds_of_data_adapt_alike(images):
    """fit starts the codebook from the same latents in each case."""
    kinds = {
        "array": images,
        "tensor": tf.constant(images),
        "dataset": tf.data.Dataset.from_tensor_slices(images).batch(8),
        "pairs": tf.data.Dataset.from_tensor_slices(
            (images, np.arange(24))
        ).batch(8),
        "sequence": _Sequence(images),
    }
    codebooks = {}
    for name, data in kinds.items():
        keras.utils.set_random_seed(0)
        model = _model()
        model.compile(keras.optimizers.SGD(0.0), run_eagerly=True)
        assert not model.quantizer.initialized
        model.quantizer.trainable = False  # so that fit only adapts
        model.fit(data, batch_size=8, steps_per_epoch=1, verbose=0)
        assert model.quantizer.initialized
        codebooks[name] = np.asarray(model.quantizer.codebook)
    for name, codebook in codebooks.items():
        np.testing.assert_allclose(
            codebook, codebooks["array"], atol=1e-5, err_msg=name
        )


def test_fit_does_not_adapt_twice(images):
    model = _model(revival_threshold=0)
    model.compile(keras.optimizers.SGD(0.0))
    model.adapt(images)
    model.quantizer.codebook.assign(np.full((8, 4), 9.0) * np.eye(8, 4))
    model.quantizer.trainable = False
    model.fit(images, batch_size=8, verbose=0)
    want = np.full((8, 4), 9.0) * np.eye(8, 4)
    np.testing.assert_array_equal(model.quantizer.codebook, want)


def test_adapt_to_nothing(images):
    model = _model()
    with pytest.raises(ValueError, match="no images"):
        model.adapt(images[:0])


def test_micro_batches_of_a_small_last_batch():
    """The last batch has fewer images than there are micro-batches."""
    data = networks.images(10, 8, 8, 3)
    weights = []
    for parts in (1, 4):
        keras.utils.set_random_seed(0)
        model = _model()
        model.compile(keras.optimizers.SGD(0.1), accumulation_steps=parts)
        model.fit(data, batch_size=8, shuffle=False, verbose=0)
        weights.append(model.get_weights())
    for a, b in zip(*weights, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


# Callbacks of Keras


def test_callbacks(images, tmp_path):
    model = _model()
    model.compile(keras.optimizers.Adam(1e-2), weight_ema=0.5)
    rates = []

    def schedule(epoch, rate):
        rates.append(float(rate))
        return rate / 2

    stop = keras.callbacks.EarlyStopping(
        "val_loss", patience=0, min_delta=1e9, restore_best_weights=True
    )
    best = keras.callbacks.ModelCheckpoint(
        tmp_path / "best.keras", monitor="val_loss", save_best_only=True
    )
    history = model.fit(
        images,
        batch_size=8,
        epochs=5,
        validation_data=images[:8],
        callbacks=[keras.callbacks.LearningRateScheduler(schedule), best, stop],
        verbose=0,
    ).history
    assert len(history["val_loss"]) == 2  # nothing improves by 1e9
    np.testing.assert_allclose(rates, [1e-2, 5e-3])
    np.testing.assert_allclose(history["learning_rate"], [5e-3, 2.5e-3])
    loaded = keras.models.load_model(tmp_path / "best.keras")
    logs = loaded.evaluate(images[:8], verbose=0, return_dict=True)
    assert logs["loss"] == pytest.approx(min(history["val_loss"]), rel=1e-4)
