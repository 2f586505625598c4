"""Every model learns on two replicas what it learns on one device."""

import keras
from cases import MODELS, parametrize
from replicas import assert_equal_training, assert_same_copies, train

cases = [case for case in MODELS if not case.random]


# Of a VQGAN, tests/trainers/test_distributed_steps.py shows it.
@parametrize(cases, slow_in_soak=True)
def test_two_replicas_equal_one_device(case, two_replicas):
    # The last batch of each epoch has 5 images: 3 and 2.
    images = case.images(21, case.side, case.side)
    arguments = {"epochs": 3, "weight_ema": 0.9}
    single = train(case.make, images, **arguments)
    mirrored = train(case.make, images, two_replicas, **arguments)
    assert_equal_training(mirrored, single)
    assert_same_copies(mirrored)


@parametrize([case for case in MODELS if case.random])
def test_random_layers_leave_the_copies_equal(case, two_replicas):
    images = case.images(16, 8, 8)
    mirrored = train(case.make, images, two_replicas)
    assert_same_copies(mirrored)
    assert isinstance(mirrored, keras.Model)
