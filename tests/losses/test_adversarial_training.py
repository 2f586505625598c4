"""When a discriminator takes part, and which times make no sense."""

import keras
import pytest

from keras_vq.losses import AdversarialTraining


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"loss": "wgan"}, "wgan"),
        ({"weight": -1.0}, "Received: weight=-1.0"),
        ({"max_adaptive_weight": float("inf")}, "max_adaptive_weight=inf"),
        ({"r1_weight": float("nan")}, "Received: r1_weight=nan"),
        ({"lecam_weight": "0.1"}, "Received: lecam_weight='0.1'"),
        ({"warmup_steps": -1}, "Received: warmup_steps=-1"),
        ({"pretraining_steps": 0.5}, "Received: pretraining_steps=0.5"),
        ({"total_steps": True}, "Received: total_steps=True"),
        ({"discriminator_start": -1}, "Received: discriminator_start=-1"),
        ({"discriminator_start": 1.5}, r"\[0, 1\).*discriminator_start=1.5"),
        ({"discriminator_start": 0.5}, "needs `total_steps`.*total_steps=None"),
        (
            {"discriminator_start": 100, "total_steps": 100},
            "must together be less than `total_steps`.*total_steps=100",
        ),
        (
            {
                "discriminator_start": 0.9,
                "pretraining_steps": 10,
                "total_steps": 100,
            },
            "after the end of training.*pretraining_steps=10, total_steps=100",
        ),
    ],
)
def test_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        AdversarialTraining(**arguments)


def test_first_steps():
    options = AdversarialTraining(
        discriminator_start=0.25, total_steps=1000, pretraining_steps=50
    )
    assert (options.first_step, options.adversarial_start) == (250, 300)
    packed = keras.saving.serialize_keras_object(options)
    assert keras.saving.deserialize_keras_object(packed) == options
    assert AdversarialTraining(discriminator_start=7).adversarial_start == 7
