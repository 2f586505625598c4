"""A step that is not finite leaves everything as it was, and is named."""

import warnings

import faults
import keras
import numpy as np
import pytest
from replicas import assert_same_copies, number, values

from keras_vq.callbacks import NonFiniteSteps, NonFiniteTrainingError

# What each fault must be found in, and what only follows from it.
_TERMS = {
    "loss": {"reconstruction_loss", "loss"},
    "gradient": {"gradients"},
    "latents": {"commitment_loss", "loss", "codebook_statistics"},
    "statistics": {"codebook_statistics"},
    "huge gradient": {"gradients"},
    "NaN image": {"images", "reconstruction_loss", "loss", "batch_statistics"},
    "infinite image": {"images", "reconstruction_loss", "loss"},
    "logits": {"real_logits", "discriminator_loss"},
    # The penalty is one of a gradient.
    "discriminator gradient": {"discriminator_gradients", "r1_penalty"},
}


@pytest.fixture(scope="module")
def one_device():
    return faults.make(accumulation_steps=2, clipnorm=1.0)


@pytest.fixture(scope="module")
def mirrored(two_replicas):
    return faults.make(two_replicas)


@pytest.fixture(scope="module")
def vqgan():
    # Step by step: its graph would take longer than these few steps.
    return faults.make(kind="vqgan", clipnorm=1.0, run_eagerly=True)


@pytest.fixture(scope="module")
def float16():
    return faults.make(dtype="mixed_float16")


def _terms(model):
    """Names of what was not finite at the latest skipped step."""
    bits = values_of(model.skipped_log)[-1, 1]
    return {n for i, n in enumerate(model.gate_terms) if bits >> i & 1}


def values_of(variable):
    return np.array(keras.ops.convert_to_numpy(variable))


def _assert_skipped(model, fault, image, but=()):
    before = faults.snapshot(model)
    steps, skipped = number(model.steps), number(model.skipped_steps)
    with pytest.warns(UserWarning, match=f"Step {steps + 1} was skipped"):
        faults.fit(model, faults.batch(1, fault, image))
    faults.assert_equal(faults.snapshot(model), before, but)
    assert number(model.steps) == steps + 1
    assert number(model.skipped_steps) == skipped + 1
    assert values_of(model.skipped_log)[-1, 0] == steps + 1
    assert _terms(model) >= _TERMS[fault]
    if len(_TERMS[fault]) == 1:
        assert _terms(model) == _TERMS[fault]


@pytest.mark.parametrize("fault", faults.FAULTS)
def test_one_device(one_device, fault):
    """In the first and in the second micro-batch."""
    for image in (0, 7):
        _assert_skipped(one_device, fault, image)


@pytest.mark.parametrize("fault", {**faults.FAULTS, **faults.CRITIC_FAULTS})
def test_both_networks_stop(vqgan, fault):
    """Neither learns from a step in which either is not finite."""
    _assert_skipped(vqgan, fault, 5)


@pytest.mark.parametrize(
    "fault, image",
    [("loss", 1), ("gradient", 6), ("latents", 7), ("statistics", 2)],
)
def test_one_replica_stops_all(mirrored, fault, image):
    _assert_skipped(mirrored, fault, image)
    assert_same_copies(mirrored)


def test_all_replicas_in_cross_replica_context(four_replicas):
    model = faults.make(four_replicas)
    _assert_skipped(model, "statistics", 5)
    _assert_skipped(model, "gradient", 0)
    assert_same_copies(model)


@pytest.mark.parametrize("kind", ["one_device", "mirrored", "vqgan"])
def test_as_if_the_bad_steps_had_not_been(kind, request):
    """Bit for bit, with the revived codes and the logs of the epoch."""
    model = request.getfixturevalue(kind)
    start = faults.snapshot(model, counters=True)
    good = [faults.batch(seed) for seed in (2, 3, 4)]
    bad = [faults.batch(5, fault) for fault in ("latents", "gradient")]
    with pytest.warns(UserWarning, match="was skipped"):
        logs = faults.fit(model, good[0], *bad, good[1], good[2])
    state = faults.snapshot(model)
    faults.restore(model, start)
    expected = faults.fit(model, *good)
    faults.assert_equal(state, faults.snapshot(model))
    assert logs.history == expected.history
    assert any(
        np.abs(state[name] - start[name]).max() > 1e-3
        for name in state
        if name.endswith("kernel")
    )


def test_learning_rate(one_device):
    rate = one_device.optimizer.learning_rate
    value = number(rate)
    rate.assign(np.nan)
    before = faults.snapshot(one_device)
    with pytest.warns(UserWarning, match="learning_rate was not finite"):
        faults.fit(one_device, faults.batch(1))
    rate.assign(value)
    after = faults.snapshot(one_device)
    rates = [name for name in before if name.endswith("/learning_rate")]
    assert len(rates) == 1
    for state in (before, after):
        del state[rates[0]]
    faults.assert_equal(after, before)


# The callback


def test_first_ones_by_name_then_one_warning_an_epoch(one_device):
    watch = NonFiniteSteps()
    steps = number(one_device.steps)
    bad = faults.batch(1, "gradient")
    epoch = [faults.batch(1), bad, bad, faults.batch(1), bad, bad, bad]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        faults.fit(one_device, *epoch, epochs=2, callbacks=[watch])
    messages = [str(w.message) for w in caught if "skipped" in str(w.message)]
    assert len(messages) == 5
    for message, step in zip(messages, (2, 3, 5), strict=False):
        assert f"Step {steps + step} was skipped: gradients was" in message
    assert "2 more of the 7 steps of epoch 1 were skipped" in messages[3]
    assert "5 more of the 7 steps of epoch 2 were skipped" in messages[4]
    assert "gradients (5 times)" in messages[4]
    assert watch.skipped == {"gradients": 10}


@pytest.mark.filterwarnings("ignore:Step .* was skipped")
def test_stops_with_advice_and_the_last_good_weights(one_device):
    good, bad = faults.batch(1), faults.batch(1, "latents")
    before = faults.snapshot(one_device)
    step = number(one_device.steps)
    with pytest.raises(NonFiniteTrainingError) as error:
        faults.fit(one_device, *[bad] * 40)
    message = str(error.value)
    assert f"The last 10 steps up to step {step + 10} were" in message
    assert "commitment_loss" in message and "clipnorm" in message
    faults.assert_equal(faults.snapshot(one_device), before)
    # The steps in a row of the stopped run do not count in the next, nor do
    # those that a good one comes between.
    faults.fit(one_device, *[bad] * 9, good, *[bad] * 9, good)
    with pytest.raises(NonFiniteTrainingError, match="images themselves"):
        faults.fit(
            one_device,
            good,
            *[faults.batch(1, "NaN image")] * 5,
            callbacks=[NonFiniteSteps(max_in_a_row=2)],
        )


@pytest.mark.filterwarnings("ignore:Step .* was skipped")
@pytest.mark.filterwarnings("ignore:.* more of the")
def test_goes_on_if_asked_to(one_device):
    watch = NonFiniteSteps(max_in_a_row=None)
    # Keras' own callback sees only finite losses.
    terminate = keras.callbacks.TerminateOnNaN()
    bad = faults.batch(1, "loss")
    faults.fit(one_device, *[bad] * 25, callbacks=[watch, terminate])
    assert watch.skipped == {"reconstruction_loss": 25, "loss": 25}
    assert not one_device.stop_training


def test_callback_refuses_other_models_and_values():
    with pytest.raises(ValueError, match="positive integer"):
        NonFiniteSteps(0)
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match="TerminateOnNaN"):
        model.fit(
            np.ones((2, 1)), np.ones(2), callbacks=[NonFiniteSteps()], verbose=0
        )


def test_the_record_is_saved_and_old_files_have_none(one_device, tmp_path):
    with pytest.warns(UserWarning, match="was skipped"):
        faults.fit(one_device, faults.batch(1, "loss"))
    one_device.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    for got, want in zip(
        loaded.training_state, one_device.training_state, strict=True
    ):
        np.testing.assert_array_equal(values_of(got), values_of(want))
    assert number(loaded.skipped_steps) > 0
    store = {}
    one_device.save_own_variables(store)
    keys = [k for k in store if "average" not in k][2:]
    kept = {k: v for k, v in store.items() if k not in keys}
    other = loaded.__class__.from_config(loaded.get_config())
    other.load_own_variables(kept)
    assert number(other.steps) == number(one_device.steps)
    assert not values_of(other.skipped_log).any()


# Where there is no gate


def test_evaluate_shows_what_is_not_finite(one_device):
    good, bad = faults.batch(1), faults.batch(1, "NaN image")
    logs = one_device.evaluate(bad, batch_size=8, verbose=0, return_dict=True)
    assert np.isnan(logs["loss"])
    logs = one_device.evaluate(good, batch_size=8, verbose=0, return_dict=True)
    assert np.isfinite(list(logs.values())).all()


@pytest.mark.parametrize("fault", ["NaN image", "infinite image"])
def test_adapt_names_the_image(one_device, fault):
    before = values(one_device)
    data = np.concatenate([faults.batch(1), faults.batch(2, fault, 3)])
    with pytest.raises(ValueError, match="image 11 .* not finite"):
        one_device.adapt(data)
    for got, want in zip(values(one_device), before, strict=True):
        np.testing.assert_array_equal(got, want)


def test_revive_refuses_what_is_not_finite(one_device):
    latents = np.full((1, 2, 2, 4), np.nan, "float32")
    with pytest.raises(ValueError, match="finite latents"):
        one_device.quantizer.revive(latents, threshold=1e9)


# The loss scale


def test_bad_images_leave_the_loss_scale_alone(float16):
    """Nothing tells that a lower scale would have helped."""
    for fault in ("NaN image", "loss", "latents", "statistics"):
        _assert_skipped(float16, fault, 3)


@pytest.mark.filterwarnings("ignore:Step .* was skipped")
def test_overflow_lowers_the_loss_scale_and_is_no_news(float16):
    optimizer = float16.optimizer
    start = faults.snapshot(float16)
    assert number(optimizer.dynamic_scale) == 2.0**8
    good, bad = faults.batch(1), faults.batch(1, "gradient")
    watch = NonFiniteSteps(max_in_a_row=3)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        faults.fit(float16, *[bad] * 8, callbacks=[watch])
    assert not [w for w in caught if "skipped" in str(w.message)]
    assert watch.skipped == {"loss_scale": 8}
    assert number(optimizer.dynamic_scale) == 1.0
    faults.assert_equal(
        faults.snapshot(float16), start, ("dynamic_scale", "step_counter")
    )
    # Lower than 1 helps no more: now it counts.
    with pytest.raises(NonFiniteTrainingError, match="mixed_bfloat16"):
        faults.fit(float16, *[bad] * 8, callbacks=[watch])
    assert number(optimizer.dynamic_scale) == 1.0
    faults.fit(float16, good)
    assert number(optimizer.step_counter) == 1


@pytest.mark.filterwarnings("error:.*skipped")
def test_too_large_a_scale_is_found_by_itself(float16):
    """Gradients overflow in float16 until the scale fits."""
    float16.optimizer.dynamic_scale.assign(2.0**24)
    before = number(float16.skipped_steps)
    iterations = number(float16.optimizer.iterations)
    faults.fit(float16, *[faults.batch(seed) for seed in range(16)])
    skipped = number(float16.skipped_steps) - before
    assert 0 < skipped < 16
    assert number(float16.optimizer.dynamic_scale) == 2.0 ** (24 - skipped)
    assert number(float16.optimizer.iterations) == iterations + 16 - skipped
