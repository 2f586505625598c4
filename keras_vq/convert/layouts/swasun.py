"""VQ-VAE of swasun/VQ-VAE-Images, PyTorch.

All layers of a residual stack are one block, listed several times: the
network passes it as often as the file repeats it. Its first ReLU works in
place, so that the skip path carries `relu(x)`.
"""

import numpy as np

from keras_vq.convert.errors import LayoutError
from keras_vq.convert.layouts.base import Layout, Plan, packed
from keras_vq.convert.rows import (
    Row,
    averaged_codebook,
    codebook,
    conv,
    transposed_conv,
)
from keras_vq.convert.weight_file import WeightFile
from keras_vq.layers import VectorQuantizer

_CODES = "_vq_vae._embedding.weight"
_AVERAGES = (_CODES, "_vq_vae._ema_cluster_size", "_vq_vae._ema_w")


def _recognises(file: WeightFile) -> bool:
    return _CODES in file.shapes and "_pre_vq_conv.weight" in file.shapes


def _plan(file: WeightFile) -> Plan:
    hidden = file.shape("_encoder._conv_3.weight", 4)[0]
    half, channels = file.shape("_encoder._conv_1.weight", 4)[:2]
    inner = file.shape(_layer("_encoder", 0, 1), 4)[0]
    codes, dim = file.shape(_CODES, 2)
    passes = {side: _passes(file, side) for side in ("_encoder", "_decoder")}
    if len(set(passes.values())) > 1:
        raise LayoutError(
            "Expected as many residual layers in the encoder as in the "
            f"decoder. Received: {passes} in {file.path}."
        )
    arguments = {
        "hidden_units": hidden,
        "residual_units": inner,
        "residual_blocks": passes["_encoder"],
        "share_residual_blocks": True,
        "codebook_size": codes,
        "codebook_dim": dim,
        "channels": channels,
        "inplace_relu_residual": True,
    }
    quantizer = codebook(_CODES, "quantizer", codes, dim)
    if set(_AVERAGES) <= set(file.shapes):
        quantizer = averaged_codebook(_AVERAGES, "quantizer", codes, dim)
    else:
        arguments["quantizer"] = packed(
            VectorQuantizer,
            codebook_size=codes,
            codebook_dim=dim,
            name="quantizer",
        )
    return Plan(
        "keras_vq>VQVAE",
        arguments,
        [
            *conv("_encoder._conv_1", "encoder/0", 4, channels, half),
            *conv("_encoder._conv_2", "encoder/1", 4, half, hidden),
            *conv("_encoder._conv_3", "encoder/2", 3, hidden, hidden),
            *_block("_encoder", "encoder/3", hidden, inner),
            *conv("_pre_vq_conv", "encoder/4", 1, hidden, dim),
            *quantizer,
            *conv("_decoder._conv_1", "decoder/0", 3, dim, hidden),
            *_block("_decoder", "decoder/1", hidden, inner),
            *transposed_conv(
                "_decoder._conv_trans_1", "decoder/2", 4, hidden, half
            ),
            *transposed_conv(
                "_decoder._conv_trans_2", "decoder/3", 4, half, channels
            ),
        ],
        unused=_unused(passes["_encoder"]),
    )


def _layer(side, number, convolution):
    return (
        f"{side}._residual_stack._layers.{number}._block.{convolution}.weight"
    )


def _block(side, path, hidden, inner) -> list[Row]:
    first, second = (
        _layer(side, 0, convolution).removesuffix(".weight")
        for convolution in (1, 3)
    )
    return [
        *conv(first, f"{path}/conv_1", 3, hidden, inner, bias=False),
        *conv(second, f"{path}/conv_2", 1, inner, hidden, bias=False),
    ]


def _passes(file, side) -> int:
    """How often the block is passed; its repetitions must be the same."""
    count = file.count(lambda i: _layer(side, i, 1))
    for convolution in (1, 3):
        shape = file.shape(_layer(side, 0, convolution), 4)
        first = file.read(_layer(side, 0, convolution))
        for i in range(1, count):
            name = _layer(side, i, convolution)
            file.shape(name, len(shape))
            if not np.array_equal(first, file.read(name)):
                raise LayoutError(
                    "Expected residual layers that are one and the same. "
                    f"Received: another one at {name!r} in {file.path}."
                )
    return count


def _unused(passes) -> str:
    """`_conv_3` under another name, and the repetitions of the block."""
    again = "|".join(str(i) for i in range(1, passes))
    block = rf"_residual_stack\._layers\.({again})\._block\.[13]\.weight"
    return rf"_encoder\._conv3\.(weight|bias)|_(en|de)coder\.{block}"


LAYOUT = Layout("swasun", "VQ-VAE of swasun/VQ-VAE-Images", _recognises, _plan)
