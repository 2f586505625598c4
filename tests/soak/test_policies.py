"""Codes and quality of the real preset under each policy, on real images."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "trainers"))

from test_precision import POLICIES, assert_measured, cifar, measure

_IMAGES = 497  # 71 batches of 7


def test_policies(data_dir, figure):
    images = cifar(data_dir, _IMAGES)
    expected = measure(images, "float32")
    for policy in POLICIES:
        found = expected if policy == "float32" else measure(images, policy)
        assert_measured(found, expected, policy)
        equal = (found["codes"] == expected["codes"]).mean()
        ways = ", ".join(f"{k} {v:.2%}" for k, v in found["agree"].items())
        figure(
            f"{policy}, {_IMAGES} images of CIFAR-10",
            f"PSNR {found['psnr']:.3f} dB, {equal:.2%} of the codes as in "
            f"float32; as in one batch: {ways}",
        )
