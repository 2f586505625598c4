"""The devices of `keras-vq train`, by the backend."""

import keras
import numpy as np
import pytest
import recorded_runs

from keras_vq.trainers.devices import number_of_devices
from keras_vq.training.strategies import NAMES, make_strategy


def test_strategies_of_other_backends_are_refused():
    own = NAMES[keras.backend.backend()]
    others = {name for names in NAMES.values() for name in names} - set(own)
    assert others
    for name in others:
        with pytest.raises(ValueError, match=f"--strategy one.*{name}"):
            make_strategy(name)


def test_one_device():
    with make_strategy("one").scope():
        assert number_of_devices() == 1


@pytest.fixture
def distribution():
    """That which a run sets is taken back."""
    if keras.backend.backend() != "jax":
        pytest.skip("keras.distribution is of JAX")
    before = keras.distribution.distribution()
    yield
    keras.distribution.set_distribution(before)


def test_data_parallel_stays_set(distribution):
    with make_strategy("data-parallel").scope():
        pass
    assert number_of_devices() == len(keras.distribution.list_devices())
    assert number_of_devices() > 1


def test_a_run_over_all_devices_has_the_losses_of_one(distribution):
    batches = ("--batch-size", 8)
    single = recorded_runs.vqvae_cifar(*batches)
    losses = recorded_runs.vqvae_cifar(*batches, "--strategy", "data-parallel")
    assert number_of_devices() == 8
    assert single.shape == losses.shape and len(losses) == recorded_runs.STEPS
    assert (losses[-1] != losses[0]).all()
    np.testing.assert_allclose(
        losses, single, rtol=1e-3, atol=1e-3 * single.mean(0).min()
    )
