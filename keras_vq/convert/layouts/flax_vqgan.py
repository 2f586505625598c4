"""VQGAN of patil-suraj/vqgan-jax in Flax, which dalle-mini uses.

Taming-transformers' weights under names of Flax; the file reader has brought
the kernels into PyTorch's order of axes. What is computed here is what the
weights were trained for, in PyTorch.
"""

from keras_vq.convert.layouts import vqgan
from keras_vq.convert.layouts.base import Layout, Plan
from keras_vq.convert.weight_file import WeightFile

_NAMES = vqgan.Names(
    down="encoder.down_{level}",
    up="decoder.up_{level}",
    block="block_{i}",
    attention="attn_{i}",
)


def _recognises(file: WeightFile) -> bool:
    return vqgan.recognises(file, _NAMES)


def _plan(file: WeightFile) -> Plan:
    arguments = vqgan.read_arguments(file, _NAMES)
    rows = vqgan.network_rows(arguments, _NAMES)
    # As the original has it: see the layout of taming-transformers.
    arguments |= {"commitment_weight": 1.0, "codebook_weight": 0.25}
    return Plan("keras_vq>VQGAN", arguments, rows)


LAYOUT = Layout(
    "flax", "VQGAN of dalle-mini and vqgan-jax (Flax)", _recognises, _plan
)
