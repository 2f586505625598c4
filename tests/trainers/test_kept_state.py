"""The model has its last good values, whatever ends `fit` and the others."""

import os
import signal

import keras
import numpy as np
import pytest
from networks import decoder, encoder, images, vqgan
from replicas import compile_model, number, values, variables

from keras_vq.layers import EMAVectorQuantizer
from keras_vq.models import VQAutoencoder

jax = pytest.importorskip("jax")
pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "jax",
    reason="only on JAX are the values not always in the variables",
)
DATA = images(40, 8, 8, 3)


class _BadImage(Exception):
    pass


class _Batches(keras.utils.PyDataset):
    """Batches of 8 images, with one that cannot be read at last.

    Args:
        bad: Which reading of a batch fails, counted from the first step.
    """

    def __init__(self, bad):
        super().__init__()
        self.bad = bad
        self.left = None
        # What looks at the data before does not count.
        self.start = keras.callbacks.LambdaCallback(
            on_train_begin=self.begin,
            on_test_begin=self.begin,
            on_predict_begin=self.begin,
        )

    def begin(self, logs=None):
        self.left = self.bad

    def __len__(self):
        return 5

    def __getitem__(self, index):
        if self.left is not None:
            if not self.left:
                raise _BadImage
            self.left -= 1
        return DATA[8 * index : 8 * index + 8]


def _model(kind="autoencoder", **arguments):
    keras.utils.set_random_seed(0)
    codes = EMAVectorQuantizer(8, 4, decay=0.9, revival_threshold=0.5)
    if kind == "vqgan":
        model = vqgan({"discriminator_start": 2}, quantizer=codes)
    else:
        model = VQAutoencoder(
            encoder(), codes, decoder(), **arguments.pop("model", {})
        )
    compile_model(model, "adam", weight_ema=0.9, **arguments)
    model.adapt(DATA)
    return model


def _fit(model, data, **arguments):
    return model.fit(data, shuffle=False, verbose=0, **arguments)


def _trained(steps, *arguments, **options):
    """A model after so many steps, which nothing disturbed."""
    model = _model(*arguments, **options)
    full, rest = divmod(steps, 5)
    if full:
        _fit(model, DATA, batch_size=8, epochs=full)
    if rest:
        _fit(model, DATA[: 8 * rest], batch_size=8)
    assert number(model.steps) == steps
    return model


def _assert_same(model, expected):
    """And the model can be trained further."""
    for variable, got, want in zip(
        variables(model), values(model), values(expected), strict=True
    ):
        np.testing.assert_array_equal(got, want, err_msg=variable.path)
    _fit(model, DATA[:8])
    assert number(model.steps) == number(expected.steps) + 1


@pytest.mark.parametrize(
    "steps, options",
    [
        (0, {}),
        (3, {}),
        # The first of the second epoch.
        (5, {}),
        # In the middle of an execution, and the first of one.
        (3, {"steps_per_execution": 2}),
        (2, {"steps_per_execution": 2}),
        pytest.param(3, {"kind": "vqgan"}, marks=pytest.mark.soak),
    ],
)
def test_image_that_cannot_be_read(steps, options):
    model, data = _model(**options), _Batches(steps)
    with pytest.raises(_BadImage):
        _fit(model, data, epochs=2, callbacks=[data.start])
    _assert_same(model, _trained(steps, **options))


def test_callback_that_fails():
    def fail(batch, logs):
        if batch == 2:
            raise _BadImage

    model = _model()
    failing = keras.callbacks.LambdaCallback(on_train_batch_end=fail)
    with pytest.raises(_BadImage):
        _fit(model, DATA, batch_size=8, callbacks=[failing])
    _assert_same(model, _trained(3))


@pytest.mark.parametrize("bad", [0, 2])
@pytest.mark.parametrize("where", ["evaluate", "predict", "validation"])
def test_image_that_is_not_for_training(where, bad):
    model, data = _trained(3), _Batches(bad)
    before = _trained(3)
    with pytest.raises(_BadImage):
        if where == "validation":
            _fit(before, DATA[:8])
            _fit(model, DATA[:8], validation_data=data, callbacks=[data.start])
        else:
            arguments = {"callbacks": [data.start], "verbose": 0}
            getattr(model, where)(data, **arguments)
    _assert_same(model, before)


def test_bad_batch_given_by_hand():
    model = _trained(3)
    for method in (model.train_on_batch, model.test_on_batch):
        with pytest.raises(ValueError):
            method(np.zeros((8, 8, 8, 5), "float32"))
    # Stands, whatever was known of the values before.
    model.decoder.layers[-1].bias.assign([0.5, 0.25, -0.5])
    data = _Batches(0)
    with pytest.raises(_BadImage):
        _fit(model, data, callbacks=[data.start])
    bias = keras.ops.convert_to_numpy(model.decoder.layers[-1].bias)
    np.testing.assert_array_equal(bias, [0.5, 0.25, -0.5])


class _Interrupting:
    """A loss that presses Ctrl-C in the middle of a compiled step."""

    def __init__(self):
        self.calls = 0

    def __call__(self, images, reconstruction):
        jax.debug.callback(self._count)
        return keras.ops.mean(
            keras.ops.square(images - reconstruction), axis=(1, 2, 3)
        )

    def _count(self):
        self.calls += 1
        if self.calls == 3:
            self.happens()

    def happens(self):
        os.kill(os.getpid(), signal.SIGINT)


class _Failing(_Interrupting):
    """A loss whose third step fails on the device."""

    def happens(self):
        raise MemoryError


@pytest.fixture
def ctrl_c():
    """Programs that a shell starts in the background ignore it otherwise."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_ctrl_c_in_a_step(ctrl_c):
    loss = _Interrupting()
    model = _model(model={"reconstruction_loss": loss})
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        _fit(model, DATA, batch_size=8, epochs=100)
    assert signal.getsignal(signal.SIGINT) is handler
    steps = number(model.steps)
    # JAX may begin with the steps that follow before it is through with one.
    assert 3 <= steps < 50
    quiet = _Interrupting()
    quiet.calls = 10
    _assert_same(model, _trained(steps, model={"reconstruction_loss": quiet}))


def test_values_that_are_lost_are_said_to_be():
    model = _model(model={"reconstruction_loss": _Failing()})
    with pytest.raises(jax.errors.JaxRuntimeError) as caught:
        _fit(model, DATA, batch_size=8, epochs=2)
    assert "used up the values" in "".join(caught.value.__notes__)
