"""The course of the learning rate that a recipe asks for."""

import math

import keras
import pytest

from keras_vq.training.optimization import AdamPlan


def rates(plan, steps, batch_size=4):
    optimizer = plan.optimizer(steps, batch_size)
    variable = keras.Variable(0.0)
    optimizer.build([variable])
    found = []
    for _ in range(steps):
        found.append(float(optimizer.learning_rate))
        optimizer.apply([keras.ops.ones(())], [variable])
    return found


def test_warmup_and_cosine():
    plan = AdamPlan(0.1, warmup_steps=5)
    expected = [0.1 * i / 5 for i in range(5)]
    expected += [0.05 * (1 + math.cos(math.pi * i / 15)) for i in range(15)]
    assert rates(plan, 20) == pytest.approx(expected, abs=1e-7)


def test_cosine_without_warmup():
    plan = AdamPlan(0.1)
    expected = [0.05 * (1 + math.cos(math.pi * i / 8)) for i in range(8)]
    assert rates(plan, 8) == pytest.approx(expected, abs=1e-7)


def test_constant_of_each_image():
    plan = AdamPlan(0.01, decay=None, beta_1=0.5, beta_2=0.9, per_image=True)
    assert rates(plan, 3, batch_size=6) == pytest.approx([0.06] * 3)
    optimizer = plan.optimizer(3, 6)
    assert (optimizer.beta_1, optimizer.beta_2) == (0.5, 0.9)
    assert plan.describe(3, 6) == (
        "Adam(0.5, 0.9) with a learning rate of 0.06, constant"
    )


def test_constant_after_warmup():
    plan = AdamPlan(0.1, warmup_steps=4, decay=None)
    found = rates(plan, 10)
    assert found == pytest.approx([0.02, 0.04, 0.06, 0.08, *[0.1] * 6])


def test_a_short_run_warms_up_for_a_tenth():
    assert AdamPlan(0.1, warmup_steps=100).warmup(50) == 5
    assert AdamPlan(0.1, warmup_steps=100).warmup(1000) == 100


def test_unknown_decay():
    with pytest.raises(ValueError, match="cosine.*Received: decay='linear'"):
        AdamPlan(0.1, decay="linear")
