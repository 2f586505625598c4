"""`VQModel` of diffusers: a directory with config.json and the weights.

The shapes tell the sizes; config.json tells the rest, and whether the model
is one that has the same arithmetic as VQGAN.
"""

import dataclasses

from keras_vq.convert.errors import LayoutError
from keras_vq.convert.layouts import vqgan
from keras_vq.convert.layouts.base import Layout, Plan
from keras_vq.convert.weight_file import WeightFile

_NAMES = vqgan.Names(
    down="encoder.down_blocks.{level}",
    up="decoder.up_blocks.{back}",
    block="resnets.{i}",
    attention="attentions.{i}",
    downsample="downsamplers.0.conv",
    upsample="upsamplers.0.conv",
    middle=(
        "mid_block.resnets.0",
        "mid_block.attentions.0",
        "mid_block.resnets.1",
    ),
    norm_out="conv_norm_out",
    shortcut="conv_shortcut",
    attention_parts=("group_norm", "to_q", "to_k", "to_v", "to_out.0"),
    linear_attention=True,
)
# Before version 0.14.
_OLD_NAMES = dataclasses.replace(
    _NAMES,
    attention_parts=("group_norm", "query", "key", "value", "proj_attn"),
)
# Of every other value the arithmetic is another one.
_EXPECTED = {
    "_class_name": "VQModel",
    "act_fn": "silu",
    "norm_type": "group",
}


def _recognises(file: WeightFile) -> bool:
    return vqgan.recognises(file, _NAMES)


def _plan(file: WeightFile) -> Plan:
    config = {**_EXPECTED, **file.config}
    differing = {k: config[k] for k, v in _EXPECTED.items() if config[k] != v}
    groups = config.get("norm_num_groups", vqgan.GROUPS)
    if differing or type(groups) is not int or groups < 1:
        raise LayoutError(
            f"Expected a VQModel of diffusers with {_EXPECTED} and a positive "
            f"norm_num_groups. Received: {differing}, norm_num_groups="
            f"{groups!r:.40} in the config.json beside {file.path}."
        )
    is_old = any(".proj_attn." in name for name in file.shapes)
    names = _OLD_NAMES if is_old else _NAMES
    arguments = vqgan.read_arguments(file, names, groups)
    rows = vqgan.network_rows(arguments, names)
    # As the original does: see the layout of taming-transformers.
    arguments |= {"commitment_weight": 1.0, "codebook_weight": 0.25}
    return Plan("keras_vq>VQGAN", arguments, rows)


LAYOUT = Layout("diffusers", "VQModel of diffusers", _recognises, _plan)
