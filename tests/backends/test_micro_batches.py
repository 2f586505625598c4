"""Micro-batches on JAX: the memory of one, and the step of all of them."""

import functools

import keras
import numpy as np
import pytest
from networks import decoder, encoder, images
from replicas import compile_model, sgd, values, variables

from keras_vq.layers import EMAVectorQuantizer
from keras_vq.models import VQAutoencoder

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "jax",
    reason="of JAX' step; TensorFlow's is in tests/trainers",
)


def _model(parts):
    keras.utils.set_random_seed(0)
    codes = EMAVectorQuantizer(8, 4, decay=0.9, revival_threshold=0.5)
    model = VQAutoencoder(encoder(), codes, decoder())
    compile_model(model, sgd(), accumulation_steps=parts, weight_ema=0.9)
    return model


def _temporary_bytes(parts):
    """What the compiled step holds beside its inputs and outputs."""
    import jax

    model, data = _model(parts), images(8 * parts, 32, 32, 3)
    model.adapt(data[:8])
    groups = (
        model.trainable_variables,
        model.non_trainable_variables,
        model.optimizer.variables,
        model.metrics_variables,
    )
    state = [[v.value for v in group] for group in groups]
    step = jax.jit(functools.partial(type(model).train_step, model))
    analysis = step.lower(state, (data,)).compile().memory_analysis()
    return analysis.temp_size_in_bytes


def test_memory_is_that_of_one():
    assert _temporary_bytes(4) < 1.5 * _temporary_bytes(1)


# Equal ones are taken in a loop, others are written out.
@pytest.mark.parametrize("size, parts", [(8, 4), (10, 4), (3, 4)])
def test_step_is_that_of_the_whole(size, parts):
    data, trained = images(size, 8, 8, 3), {}
    for count in (1, parts):
        model = trained[count] = _model(count)
        model.fit(data, batch_size=size, epochs=2, shuffle=False, verbose=0)
    for variable, want, got in zip(
        variables(trained[1]),
        values(trained[1]),
        values(trained[parts]),
        strict=True,
    ):
        np.testing.assert_allclose(
            got, want, rtol=1e-5, atol=1e-5, err_msg=variable.path
        )
