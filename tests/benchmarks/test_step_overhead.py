"""The bare step and the replicas train what the package's step trains."""

import numpy as np
import pytest

from benchmarks import report, step_overhead

CONFIG = {
    "hidden_units": 8,
    "residual_units": 4,
    "residual_blocks": 1,
    "codebook_size": 16,
    "codebook_dim": 4,
}


@pytest.mark.soak
def test_all_variants_train_alike(monkeypatch):
    seen = {}
    check = step_overhead.check_losses
    monkeypatch.setattr(
        step_overhead, "check_losses", lambda x: (seen.update(x), check(x))
    )
    batches = np.random.default_rng(0).uniform(-1, 1, (2, 8, 16, 16, 3))
    variants = {
        "keras_vq": {},
        "bare Keras": {"bare": True},
        "2 replicas": {"replicas": 2},
    }
    seconds = step_overhead.measure(
        CONFIG, batches.astype("float32"), [variants], rounds=1
    )
    assert {name: len(s) for name, s in seconds.items()} == dict.fromkeys(
        variants, 1
    )
    for losses in seen.values():
        np.testing.assert_allclose(losses, seen["keras_vq"], rtol=1e-4)
    # The losses move, or the comparison would say nothing.
    assert len(set(np.round(seen["keras_vq"], 6))) == 3


def test_losses_that_part():
    with pytest.raises(RuntimeError, match="bare Keras computes something"):
        step_overhead.check_losses(
            {"keras_vq": [1.0, 0.5], "bare Keras": [1.0, 0.6]}
        )


def test_report():
    text = report.step_overhead(
        {
            "median_ms": {"keras_vq": 102.0, "bare Keras": 100.0},
            "ratio": 1.02,
            "target_ratio": 1.05,
            "images_per_second": {"1 device": 1280.4, "2 replicas": 900.0},
        }
    )
    assert "| 102.0 | 100.0 | 1.020 | at most 1.05 |" in text
    assert "| 1,280 | 900 |" in text
