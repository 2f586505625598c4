"""Both frameworks take the same step, and the operations are counted right."""

import copy
import math

import pytest

from benchmarks import report, vqgan_step
from benchmarks.accelerator_material import SMALL_MODELS

CONFIG = SMALL_MODELS["vqgan_f16"]["config"]


@pytest.mark.soak
def test_both_frameworks_take_the_same_step():
    pytest.importorskip("diffusers", reason="what the step is compared with")
    request = {"config": CONFIG, "size": 32, "batch_size": 2, "data_dir": None}
    result = vqgan_step.measure(request, rounds=1, compiled=False)
    ours, theirs = result["first_values"].values()
    assert len(ours) == len(theirs) == 2
    for term in vqgan_step.TERMS:
        # One of float64 would agree further; these are float32.
        assert ours[0][term] == pytest.approx(theirs[0][term], rel=1e-3)
        assert ours[0][term] != ours[1][term]
    assert set(result["peak_mb"]) == set(result["first_values"])
    assert min(result["peak_mb"].values()) > 100
    assert set(result["ratio"]) == set(vqgan_step.TARGETS)


def test_operations():
    pytest.importorskip("diffusers", reason="what the step is compared with")
    from benchmarks.torch_vqgan import required_flops

    size, batch, width = 32, 2, 8
    material = {
        "config": {
            "down_block_types": ("DownEncoderBlock2D",),
            "up_block_types": ("UpDecoderBlock2D",),
            "block_out_channels": (width,),
            "latent_channels": 4,
            "norm_num_groups": 4,
            "mid_block_add_attention": False,
        },
        "discriminator": (4, 2, 3, "batch"),
        **_no_constants(),
    }
    found = required_flops(material, size, batch)
    # Multiplications of a position: the first, six 3x3 within, the last, 1x1.
    encode = 27 * width + 6 * 9 * width**2 + 9 * width * 4 + 4 * 4
    decode = 4 * 4 + 9 * 4 * width + 8 * 9 * width**2 + 27 * width
    assert found["encode"] == 2 * batch * size**2 * encode
    assert found["decode"] == 2 * batch * size**2 * decode
    # Backward twice as many, but for the first, whose images are not trained.
    autoencoder = 2 * batch * size**2 * (3 * (encode + decode) - 27 * width)
    # 4x4 kernels at 16, 8, 7 and 6 positions of a side.
    first = 16 * 16**2 * 3 * 4
    rest = 16 * (8**2 * 4 * 8 + 7**2 * 8 * 16 + 6**2 * 16)
    # Twice forward; to the weights for both, which needs no images; for the
    # other network through all of it to the reconstruction.
    critic = 2 * batch * (5 * first + 7 * rest)
    # Twice forward, and to the reconstruction.
    perceptual = 2 * batch * 3 * _squeezenet(size)
    assert found["step"] == autoencoder + critic + perceptual


def _squeezenet(size):
    """Multiplications for one image."""
    from keras_vq.losses.lpips_trunks import TRUNKS

    # The first convolution, and the modules before each pool.
    sides = {"0": 15, "3": 7, "4": 7, "6": 3, "7": 3}
    assert size == 32
    return sum(
        sides.get(name.split(".")[0], 1) ** 2 * math.prod(shape)
        for name, shape in TRUNKS["squeeze"].convolutions
    )


def _no_constants():
    import torch

    return {
        "linear": [torch.zeros(n) for n in (64, 128, 256, 384, 384, 512, 512)],
        "scaling": [torch.zeros(3)] * 2,
    }


def test_values_that_part():
    step = dict.fromkeys(vqgan_step.TERMS, 1.0)
    values = [step, step, {"codes": [[1, 2], [3, 4]]}]
    vqgan_step.check_values({"keras_vq": values, "torch": values})
    other = copy.deepcopy(values)
    other[0]["adaptive_weight"] = 1.01
    with pytest.raises(RuntimeError, match="torch computes something else"):
        vqgan_step.check_values({"keras_vq": values, "torch": other})
    other = [step, step, {"codes": [1, 2, 3, 5]}]
    with pytest.raises(RuntimeError, match="other codes .* 1 of 4"):
        vqgan_step.check_values({"keras_vq": values, "torch": other})


def test_summary_and_report():
    batch, side, channels = vqgan_step.CONVOLUTION
    operations = 18 * batch * side**2 * channels**2
    seconds = {
        "step": {"keras_vq": [1.0, 2.0, 9.0], "torch": [3.0, 3.0, 4.0]},
        "encode": {"keras_vq": [0.5] * 3, "torch": [0.25] * 3},
        "convolution": {"keras_vq": [0.1] * 3},
    }
    flops = {"step": 10 * operations, "encode": operations}
    result = vqgan_step.summary(seconds, flops)
    assert result["ratio"]["step"]["torch"] == 1.5
    assert result["ratio"]["encode"]["torch"] == 0.5
    shares = result["share_of_convolution"]
    assert shares["step"]["keras_vq"] == pytest.approx(0.5)
    assert shares["encode"]["torch"] == pytest.approx(0.4)
    text = report.vqgan_step(
        {**result, "peak_mb": dict.fromkeys(shares["step"], 7100)}
    )
    assert "| step, seconds | 2.00 (50%) | 3.00 (33%) |" in text
    assert "| most memory held, MB | 7,100 | 7,100 |" in text
    assert "- step: 1.50 times torch (aim for eager: 1.3)." in text
