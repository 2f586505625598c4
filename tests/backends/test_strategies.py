"""The devices of `keras-vq train`, by the backend."""

import keras
import pytest

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


def test_data_parallel_stays_set():
    if keras.backend.backend() != "jax":
        pytest.skip("keras.distribution is of JAX")
    before = keras.distribution.distribution()
    try:
        with make_strategy("data-parallel").scope():
            pass
        assert number_of_devices() == len(keras.distribution.list_devices())
        assert number_of_devices() > 1
    finally:
        keras.distribution.set_distribution(before)
