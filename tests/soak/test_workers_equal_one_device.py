"""The long forms: two workers, four replicas, and workers that die."""

import random
import time

import keras
import numpy as np
import pytest
import workers_compare
import workers_harness
from networks import decoder, encoder, images
from replicas import assert_same_copies, largest_differences, train

from keras_vq.layers import EMAVectorQuantizer
from keras_vq.metrics import PSNR
from keras_vq.models import VQAutoencoder

SCRIPTS = workers_harness.ROOT / "tests" / "workers"


# Two networks against each other let rounding grow faster than one.
@pytest.mark.parametrize(
    "kind, optimizer, steps",
    [
        ("autoencoder", "sgd", 50),
        ("autoencoder", "adam", 5),
        ("vqvae2", "sgd", 50),
        ("vqvae2", "adam", 5),
        ("vqgan", "sgd", 50),
        ("vqgan", "adam", 5),
    ],
)
def test_two_workers_are_one_device(kind, optimizer, steps, tmp_path, figure):
    one, *many = workers_compare.train_both(
        tmp_path, steps, optimizer, kind, timeout=900
    )
    for worker in many:
        workers_compare.assert_equal(worker, one)
    weights, codebook = (
        max(
            workers_compare.largest_difference(worker, one, of_codebook)
            for worker in many
        )
        for of_codebook in (False, True)
    )
    figure(
        f"2 workers and one device, {kind}, {steps} steps of {optimizer}",
        f"weights differ by {weights:.1e}, the codebook by {codebook:.1e}",
    )
    first, second = (arrays for _, arrays in many)
    for name in first:
        np.testing.assert_array_equal(first[name], second[name], name)
    count = len(one[0]["paths"])
    figure(
        f"Variables of the 2 workers, {kind}, {steps} steps of {optimizer}",
        f"{count} of {count} bit-equal",
    )


def test_killed_workers(tmp_path, figure):
    """Either of two, in fit, in its validation, and in evaluate."""
    rng = random.Random(0)
    moments = ["fit"] * 6 + ["validation"] * 2 + ["evaluate"] * 2
    seconds = []
    for number, moment in enumerate(moments):
        folder = tmp_path / str(number)
        folder.mkdir()
        command = [str(SCRIPTS / "killed.py"), moment]
        with workers_harness.cluster(command, folder) as pair:
            victim = pair.pop(number % 2)
            (survivor,) = pair
            word = "training" if moment == "fit" else "evaluating"
            survivor.wait_for(word, timeout=240)
            time.sleep(rng.uniform(0, 1))
            start = time.monotonic()
            victim.kill()
            assert survivor.wait(60) == 1, survivor.output[-3000:]
            seconds.append(time.monotonic() - start)
            lost = f"WorkerLostError: Lost worker {number % 2} at "
            assert lost + victim.address in survivor.output
    good = sum(s <= 10 for s in seconds)
    figure(
        "Killed workers that the other names, and ends within 10 s",
        f"{good}/{len(seconds)}, after {max(seconds):.1f} s at most",
    )
    assert good == len(seconds)


def test_four_replicas_are_one_device(four_replicas, figure):
    """500 steps with EMA, adapt, revival, clipping, averages, metrics."""

    def make():
        codes = EMAVectorQuantizer(8, 4, decay=0.9, revival_threshold=0.8)
        return VQAutoencoder(encoder(), codes, decoder())

    def trained(strategy, steps):
        data = images(8 * steps, 8, 8, 3)
        options = {"weight_ema": 0.9, "clipnorm": 0.5}
        return train(make, data, strategy, **options, metrics=[PSNR()])

    one, four = trained(None, 50), trained(four_replicas, 50)
    weights, codebook = largest_differences(four, one)
    figure(
        "4 replicas and one device, 50 steps of sgd",
        f"weights differ by {weights:.1e}, the codebook by {codebook:.1e}",
    )
    assert weights <= 1e-5 and codebook <= 1e-3
    keras.backend.clear_session()
    four = trained(four_replicas, 500)
    assert int(keras.ops.convert_to_numpy(four.steps)) == 500
    assert_same_copies(four)
    figure("Copies of 4 replicas after 500 steps", "bit-equal")
