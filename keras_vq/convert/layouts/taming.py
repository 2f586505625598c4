"""VQGAN of CompVis/taming-transformers, and latent diffusion's.

A checkpoint holds the autoencoder, and as a rule the discriminator and LPIPS
with its VGG16, all of which are used.
"""

import dataclasses
import re

from keras_vq.convert.layouts import vqgan
from keras_vq.convert.layouts.base import Layout, Plan, packed
from keras_vq.convert.rows import Row, batch_norm, conv
from keras_vq.convert.weight_file import WeightFile
from keras_vq.losses import LPIPS
from keras_vq.losses.lpips_trunks import TRUNKS
from keras_vq.models.discriminators import PatchGAN

_NAMES = vqgan.Names(
    down="encoder.down.{level}",
    up="decoder.up.{level}",
)
_CRITIC = "loss.discriminator.main"
_LPIPS = "loss.perceptual_loss"
# LPIPS looks behind the last convolution of each of these slices.
_SLICES = ((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28))


def _recognises(file: WeightFile) -> bool:
    return vqgan.recognises(file, _NAMES)


def _plan(file: WeightFile) -> Plan:
    arguments = vqgan.read_arguments(file, _NAMES)
    rows = vqgan.network_rows(arguments, _NAMES)
    # The original puts the weight that belongs to the commitment loss before
    # the codebook loss.
    arguments |= {"commitment_weight": 1.0, "codebook_weight": 0.25}
    plan = Plan("keras_vq>VQGAN", arguments, rows)
    if f"{_CRITIC}.0.weight" in file.shapes:
        plan = _with_critic(plan, file)
    if f"{_LPIPS}.lin0.model.1.weight" in file.shapes:
        plan = _with_lpips(plan, file)
    return plan


def _with_critic(plan, file) -> Plan:
    """The same with the discriminator."""
    critic = _critic_arguments(file)
    packed_critic = packed(PatchGAN, **critic)
    return dataclasses.replace(
        plan,
        arguments={**plan.arguments, "discriminator": packed_critic},
        rows=[*plan.rows, *_critic_rows(**critic)],
        parts=("discriminator",),
    )


def _critic_arguments(file) -> dict:
    filters, channels = file.shape(f"{_CRITIC}.0.weight", 4)[:2]
    layers = file.count(lambda i: f"{_CRITIC}.{3 * (i + 1)}.running_mean")
    return {
        "filters": filters,
        "num_layers": max(layers, 1),
        "channels": channels,
    }


def _critic_rows(filters, num_layers, channels) -> list[Row]:
    def path(number):
        return f"discriminator/main/{number}"

    rows = conv(f"{_CRITIC}.0", path(0), 4, channels, filters)
    width = filters
    for n in range(1, num_layers + 1):
        inputs, width = width, filters * min(2**n, 8)
        first = 3 * n - 1
        kernel, _ = conv(f"{_CRITIC}.{first}", path(first), 4, inputs, width)
        name = f"{_CRITIC}.{first + 1}"
        rows += [kernel, *batch_norm(name, path(first + 1), width)]
    last = 3 * num_layers + 2
    return rows + conv(f"{_CRITIC}.{last}", path(last), 4, width, 1)


def _with_lpips(plan, file) -> Plan:
    """The same with the perceptual loss whose weights the file holds."""
    expected = {
        f"{_LPIPS}.scaling_layer.{name}": (1, 3, 1, 1)
        for name in ("shift", "scale")
    }
    trunk = TRUNKS["vgg"]
    slices = {n: i for i, own in enumerate(_SLICES, 1) for n in own}
    for number, (height, width, inputs, outputs) in trunk.convolutions:
        name = f"{_LPIPS}.net.slice{slices[int(number)]}.{number}"
        expected[f"{name}.weight"] = (outputs, inputs, height, width)
        expected[f"{name}.bias"] = (outputs,)
    for i, width in enumerate(trunk.widths):
        expected[f"{_LPIPS}.lin{i}.model.1.weight"] = (1, width, 1, 1)
    if not file.is_torch:
        # LPIPS reads files of torch only: it takes the published ones.
        unused = rf"{plan.unused}|{re.escape(_LPIPS)}\..*"
        return dataclasses.replace(plan, unused=unused)
    path = str(file.path.absolute())
    loss = packed(LPIPS, trunk="vgg", trunk_weights=path, linear_weights=path)
    del loss["config"]["dtype"]
    return dataclasses.replace(
        plan,
        arguments={**plan.arguments, "perceptual_loss": loss},
        elsewhere=expected,
    )


LAYOUT = Layout(
    "taming",
    "VQGAN of CompVis/taming-transformers and latent-diffusion",
    _recognises,
    _plan,
)
