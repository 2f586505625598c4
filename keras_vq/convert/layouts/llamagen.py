"""VQ-8 and VQ-16 of FoundationVision/LlamaGen.

VQGAN's networks under other names, with codes of unit length.
"""

from keras_vq.convert.layouts import vqgan
from keras_vq.convert.layouts.base import Layout, Plan, packed
from keras_vq.convert.weight_file import WeightFile
from keras_vq.layers import VectorQuantizer

_NAMES = vqgan.Names(
    down="encoder.conv_blocks.{level}",
    up="decoder.conv_blocks.{back}",
    block="res.{i}",
    middle=("mid.0", "mid.1", "mid.2"),
)


def _recognises(file: WeightFile) -> bool:
    return vqgan.recognises(file, _NAMES)


def _plan(file: WeightFile) -> Plan:
    arguments = vqgan.read_arguments(file, _NAMES)
    rows = vqgan.network_rows(arguments, _NAMES)
    arguments["quantizer"] = packed(
        VectorQuantizer,
        codebook_size=arguments.pop("codebook_size"),
        codebook_dim=arguments["codebook_dim"],
        l2_normalize=True,
        name="quantizer",
    )
    # A memory of which codes the last batches of its training took.
    return Plan(
        "keras_vq>VQGAN", arguments, rows, unused=r"quantize\.codebook_used"
    )


LAYOUT = Layout(
    "llamagen",
    "VQ-8 and VQ-16 of FoundationVision/LlamaGen",
    _recognises,
    _plan,
)
