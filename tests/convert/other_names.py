"""What other programs call the weights of taming-transformers' VQGAN.

Written independently of the package's tables, for networks of two levels.
"""

import re
import struct

import numpy as np


def llamagen_name(name):
    """What LlamaGen calls a part of a network with two levels."""
    for pattern, replacement in (
        (r"^encoder\.down\.(\d)", r"encoder.conv_blocks.\1"),
        (
            r"^decoder\.up\.(\d)",
            lambda m: f"decoder.conv_blocks.{1 - int(m[1])}",
        ),
        (r"\.block\.", ".res."),
        (r"\.mid\.block_1\.", ".mid.0."),
        (r"\.mid\.attn_1\.", ".mid.1."),
        (r"\.mid\.block_2\.", ".mid.2."),
    ):
        name = re.sub(pattern, replacement, name)
    return name


def packed(value):
    """MessagePack, as flax.serialization writes it."""
    if isinstance(value, dict):
        count = len(value)
        start = (
            bytes([0x80 + count]) if count < 16 else b"\xde\0" + bytes([count])
        )
        return start + b"".join(
            packed(part) for item in value.items() for part in item
        )
    if isinstance(value, str):
        text = value.encode()
        assert len(text) < 32
        return bytes([0xA0 + len(text)]) + text
    shape = b"".join(b"\xcd" + struct.pack(">H", n) for n in value.shape)
    data = value.tobytes()
    content = b"\x93" + bytes([0x90 + value.ndim]) + shape
    content += packed(value.dtype.name)
    content += b"\xc6" + struct.pack(">I", len(data)) + data
    return b"\xc9" + struct.pack(">I", len(content)) + b"\x01" + content


def flax_tree(state):
    """The tree of parameters that vqgan-jax has for a state dict."""
    tree = {}
    for name, value in state.items():
        array = np.asarray(value)
        is_norm = "norm" in name
        name = re.sub(r"\.(down|up|block|attn)\.(\d)", r".\1_\2", name)
        *parents, leaf = name.split(".")
        if leaf == "weight" and array.ndim == 4:
            leaf, array = "kernel", array.transpose(2, 3, 1, 0)
        elif leaf == "weight":
            leaf = "scale" if is_norm else "embedding"
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[leaf] = np.ascontiguousarray(array)
    return tree


def diffusers_name(name, old):
    """What diffusers calls a part of a network with two levels."""
    parts = dict(q="to_q", k="to_k", v="to_v", proj_out="to_out.0")
    if old:
        parts = dict(q="query", k="key", v="value", proj_out="proj_attn")
    for pattern, replacement in (
        (r"^encoder\.down\.(\d)\.", r"encoder.down_blocks.\1."),
        (
            r"^decoder\.up\.(\d)\.",
            lambda m: f"decoder.up_blocks.{1 - int(m[1])}.",
        ),
        (r"\.block\.", ".resnets."),
        (r"\.attn\.", ".attentions."),
        (r"\.downsample\.", ".downsamplers.0."),
        (r"\.upsample\.", ".upsamplers.0."),
        (r"\.mid\.block_1\.", ".mid_block.resnets.0."),
        (r"\.mid\.attn_1\.", ".mid_block.attentions.0."),
        (r"\.mid\.block_2\.", ".mid_block.resnets.1."),
        (r"\.norm_out\.", ".conv_norm_out."),
        (r"\.nin_shortcut\.", ".conv_shortcut."),
        (r"(attentions\.\d)\.norm\.", r"\1.group_norm."),
        (
            r"(attentions\.\d)\.(q|k|v|proj_out)\.",
            lambda m: f"{m[1]}.{parts[m[2]]}.",
        ),
    ):
        name = re.sub(pattern, replacement, name)
    return name
