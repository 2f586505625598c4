"""What only TensorFlow has is refused elsewhere, with what to do instead."""

import keras
import pytest

from keras_vq.models import VQVAE
from keras_vq.trainers import scope


def test_saved_models(monkeypatch, tmp_path):
    model = VQVAE(hidden_units=4, residual_units=2, codebook_size=4)
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(ValueError, match="KERAS_BACKEND=tensorflow.*: the bac"):
        model.export(str(tmp_path / "saved"))
    assert not (tmp_path / "saved").exists()


def test_strategies(two_replicas, monkeypatch):
    model = VQVAE(hidden_units=4, residual_units=2, codebook_size=4)
    monkeypatch.setattr(keras.backend, "backend", lambda: "torch")
    scope.check_scope(model)
    message = "DataParallel.*Received: MirroredStrategy"
    with two_replicas.scope(), pytest.raises(ValueError, match=message):
        scope.check_scope(model)
