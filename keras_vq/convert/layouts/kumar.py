"""VQ-VAE of ritheshkumar95/pytorch-vqvae, with batch normalization.

The first ReLU of its residual blocks works in place, so that the skip path
carries `relu(x)`.
"""

from keras_vq.convert.layouts.base import Layout, Plan, packed
from keras_vq.convert.rows import (
    Row,
    batch_norm,
    codebook,
    conv,
    transposed_conv,
)
from keras_vq.convert.weight_file import WeightFile
from keras_vq.layers import VectorQuantizer

_CODES = "codebook.embedding.weight"


def _recognises(file: WeightFile) -> bool:
    return _CODES in file.shapes and "encoder.4.block.1.weight" in file.shapes


def _plan(file: WeightFile) -> Plan:
    units, channels = file.shape("encoder.0.weight", 4)[:2]
    inner = file.shape("encoder.4.block.1.weight", 4)[0]
    codes = file.shape(_CODES, 2)[0]
    rows = [
        *conv("encoder.0", "encoder/0", 4, channels, units),
        *batch_norm("encoder.1", "encoder/1", units),
        *conv("encoder.3", "encoder/2", 4, units, units),
        *_block("encoder.4", "encoder/3", units, inner),
        *_block("encoder.5", "encoder/4", units, inner),
        *codebook(_CODES, "quantizer", codes, units),
        *_block("decoder.0", "decoder/0", units, inner),
        *_block("decoder.1", "decoder/1", units, inner),
        *transposed_conv("decoder.3", "decoder/2", 4, units, units),
        *batch_norm("decoder.4", "decoder/3", units),
        *transposed_conv("decoder.6", "decoder/4", 4, units, channels),
    ]
    arguments = {
        "hidden_units": units,
        "residual_units": inner,
        "codebook_dim": units,
        "quantizer": packed(
            VectorQuantizer,
            codebook_size=codes,
            codebook_dim=units,
            name="quantizer",
        ),
        "channels": channels,
        "bottleneck_convolutions": False,
        "use_batch_normalization": True,
        "output_activation": "tanh",
        "inplace_relu_residual": True,
        "commitment_weight": 1.0,
    }
    return Plan("keras_vq>VQVAE", arguments, rows)


def _block(name, path, units, inner) -> list[Row]:
    return [
        *conv(f"{name}.block.1", f"{path}/conv_1", 3, units, inner),
        *batch_norm(f"{name}.block.2", f"{path}/norm_1", inner),
        *conv(f"{name}.block.4", f"{path}/conv_2", 1, inner, units),
        *batch_norm(f"{name}.block.5", f"{path}/norm_2", units),
    ]


LAYOUT = Layout(
    "kumar", "VQ-VAE of ritheshkumar95/pytorch-vqvae", _recognises, _plan
)
