"""A VQGAN in half precision with micro-batches: the step of every backend."""

import keras
import numpy as np
import pytest
from networks import images, vqgan
from replicas import compile_model, number, values

LossScale = keras.optimizers.LossScaleOptimizer
_STEPS = 10

pytestmark = []
if keras.backend.backend() == "tensorflow":
    # tests/models/test_vqgan_training.py has its parts.
    pytestmark.append(pytest.mark.soak)


def _trained(dtype, scale=None):
    """Trained on the same data; `.logs` has the losses of the epochs."""
    keras.utils.set_random_seed(0)
    model = vqgan({"r1_weight": 0.1, "lecam_weight": 0.1}, dtype=dtype)
    optimizer = keras.optimizers.Adam(1e-3)
    if scale is not None:
        optimizer = LossScale(optimizer, initial_scale=scale)
    compile_model(model, optimizer, accumulation_steps=2, weight_ema=0.9)
    data = images(8, 16, 16, 3)
    model.logs = model.fit(
        data, batch_size=8, epochs=_STEPS, shuffle=False, verbose=0
    ).history
    return model


@pytest.mark.parametrize("dtype", ["mixed_float16", "mixed_bfloat16"])
def test_learns_as_in_float32(dtype):
    single = _trained("float32")
    model = _trained(dtype)
    assert number(model.skipped_steps) == 0
    for optimizer, _ in model.optimizer_groups.values():
        assert isinstance(optimizer, LossScale) == (dtype == "mixed_float16")
        assert number(optimizer.iterations) == _STEPS
    for name in ("reconstruction_loss", "discriminator_loss"):
        losses, expected = model.logs[name], single.logs[name]
        assert losses[-1] != losses[0]
        np.testing.assert_allclose(losses, expected, rtol=5e-2, err_msg=name)
    losses = model.logs["reconstruction_loss"]
    assert losses[-1] < 0.97 * losses[0]


@pytest.mark.filterwarnings("error:.*skipped")
def test_both_find_their_loss_scale():
    """Gradients of the sum of the micro-batches overflow until it fits."""
    model = _trained("mixed_float16", scale=2.0**24)
    skipped = number(model.skipped_steps)
    assert 0 < skipped < _STEPS
    overflows = model.skipped_by_term[model.gate_terms.index("loss_scale")]
    assert number(overflows) == skipped
    for optimizer, _ in model.optimizer_groups.values():
        assert number(optimizer.iterations) == _STEPS - skipped
        assert number(optimizer.dynamic_scale) < 2.0**24
    assert all(np.isfinite(value).all() for value in values(model))
