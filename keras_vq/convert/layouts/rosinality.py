"""VQ-VAE-2 of rosinality/vq-vae-2-pytorch: two levels.

Its residual blocks carried `relu(x)` on the skip path until a change of 23
January 2021 (commit ef5f67c), and `x` since. The names are the same, so that
only the published file is known to be of the former kind.
"""

from keras_vq.convert.download import git_blob_id
from keras_vq.convert.layouts.base import Layout, Plan
from keras_vq.convert.rows import (
    Row,
    averaged_codebook,
    conv,
    transposed_conv,
)
from keras_vq.convert.weight_file import WeightFile

# vqvae_560.pt, by the hash that its repository has it under.
PUBLISHED_BLOB = "a71304f01e98dae4bcf67dc79b49130e68cb2172"

_MARKS = ("quantize_t.embed", "quantize_b.embed", "enc_b.blocks.0.weight")
_UNDECIDED = (
    "True for files of trainings before 23 January 2021 (the published "
    "vqvae_560.pt is one), whose skip paths carry relu(x); False for later "
    "ones. With the wrong one the images are wrong, and nothing says so"
)


def _recognises(file: WeightFile) -> bool:
    return set(_MARKS) <= set(file.shapes)


def _plan(file: WeightFile) -> Plan:
    hidden = file.shape("enc_b.blocks.4.weight", 4)[0]
    half, channels = file.shape("enc_b.blocks.0.weight", 4)[:2]
    blocks = file.count(lambda i: f"enc_b.blocks.{5 + i}.conv.1.weight")
    inner = file.shape("enc_b.blocks.5.conv.1.weight", 4)[0]
    dim, codes = file.shape("quantize_b.embed", 2)
    names = _Names(hidden, inner, blocks)
    arguments = {
        "hidden_units": hidden,
        "residual_units": inner,
        "residual_blocks": blocks,
        "codebook_size": codes,
        "codebook_dim": dim,
        "channels": channels,
        "encoder_kernel_size": 4,
    }
    undecided = {}
    with open(file.path, "rb") as stream:
        blob = git_blob_id(stream)
    if blob == PUBLISHED_BLOB:
        arguments["inplace_relu_residual"] = True
    else:
        undecided["inplace_relu_residual"] = _UNDECIDED
    up = 1 + blocks + 1  # Behind a convolution, the blocks and a ReLU.
    finer, coarser = "encoder/down_1", "encoder/down_2"
    context = "quantizer/contexts/0"
    rows = [
        *conv("enc_b.blocks.0", f"{finer}/0", 4, channels, half),
        *conv("enc_b.blocks.2", f"{finer}/1", 4, half, hidden),
        *names.stack("enc_b", 4, "encoder/features_1", hidden),
        *conv("enc_t.blocks.0", f"{coarser}/0", 4, hidden, half),
        *names.stack("enc_t", 2, "encoder/features_2", half),
        *names.quantizer("t", 0, hidden, dim, codes),
        *names.stack("dec_t", 0, f"{context}/mixed_2", dim),
        *transposed_conv(
            f"dec_t.blocks.{up}", f"{context}/up_2/0", 4, hidden, dim
        ),
        *names.quantizer("b", 1, dim + hidden, dim, codes),
        *transposed_conv("upsample_t", "decoder/raise_2_1", 4, dim, dim),
        *names.stack("dec", 0, "decoder/mixed_1", 2 * dim),
        *transposed_conv(f"dec.blocks.{up}", "decoder/up_1/0", 4, hidden, half),
        *transposed_conv(
            f"dec.blocks.{up + 2}", "decoder/up_1/1", 4, half, channels
        ),
    ]
    return Plan("keras_vq>VQVAE2", arguments, rows, undecided=undecided)


class _Names:
    def __init__(self, hidden, inner, blocks):
        self.hidden, self.inner, self.blocks = hidden, inner, blocks

    def stack(self, name, first, path, inputs) -> list[Row]:
        """A 3x3 convolution and the residual blocks behind it."""
        name = f"{name}.blocks"
        rows = conv(f"{name}.{first}", f"{path}/0", 3, inputs, self.hidden)
        for i in range(1, self.blocks + 1):
            block, layer = f"{name}.{first + i}.conv", f"{path}/{i}"
            rows += [
                *conv(
                    f"{block}.1", f"{layer}/conv_1", 3, self.hidden, self.inner
                ),
                *conv(
                    f"{block}.3", f"{layer}/conv_2", 1, self.inner, self.hidden
                ),
            ]
        return rows

    def quantizer(self, level, number, inputs, dim, codes) -> list[Row]:
        prefix = f"quantize_{level}"
        return [
            *conv(
                f"quantize_conv_{level}",
                f"quantizer/projections/{number}",
                1,
                inputs,
                dim,
            ),
            *averaged_codebook(
                tuple(
                    f"{prefix}.{part}"
                    for part in ("embed", "cluster_size", "embed_avg")
                ),
                f"quantizer/quantizers/{number}",
                codes,
                dim,
                transposed=True,
            ),
        ]


LAYOUT = Layout(
    "rosinality",
    "VQ-VAE-2 of rosinality/vq-vae-2-pytorch",
    _recognises,
    _plan,
)
