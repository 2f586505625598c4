"""The `VQModel` of diffusers that is a given VQGAN, with its weights."""

import re

import numpy as np
import pytest

from tests import torch_vqgan
from tests.torch_vqgan import torch

# Names of the original, and of diffusers.
_NAMES = (
    (r"\.down\.(\d+)\.block\.", r".down_blocks.\1.resnets."),
    (r"\.down\.(\d+)\.attn\.", r".down_blocks.\1.attentions."),
    (r"\.down\.(\d+)\.downsample\.", r".down_blocks.\1.downsamplers.0."),
    (r"\.up\.(\d+)\.block\.", r".up_blocks.\1.resnets."),
    (r"\.up\.(\d+)\.attn\.", r".up_blocks.\1.attentions."),
    (r"\.up\.(\d+)\.upsample\.", r".up_blocks.\1.upsamplers.0."),
    (r"\.mid\.block_1\.", ".mid_block.resnets.0."),
    (r"\.mid\.block_2\.", ".mid_block.resnets.1."),
    (r"\.mid\.attn_1\.", ".mid_block.attentions.0."),
    (r"\.nin_shortcut\.", ".conv_shortcut."),
    (r"(attentions\.\d+)\.norm\.", r"\1.group_norm."),
    (r"(attentions\.\d+)\.([qkv])\.", r"\1.to_\2."),
    (r"(attentions\.\d+)\.proj_out\.", r"\1.to_out.0."),
    (r"\.norm_out\.", ".conv_norm_out."),
)


def vq_model(model, sizes):
    """The twin of a Keras model, in float64.

    Args:
        model: A `VQGAN` or another autoencoder of its networks.
        sizes: Its `VQGANNetworks`, or an object with their attributes.
    """
    diffusers = pytest.importorskip("diffusers", reason="compares with it")
    levels = range(len(sizes.channel_multipliers))
    attention = [2**level in sizes.attention_factors for level in levels]
    kinds = {False: "{}EncoderBlock2D", True: "Attn{}EncoderBlock2D"}
    twin = diffusers.VQModel(
        in_channels=sizes.channels,
        out_channels=sizes.channels,
        down_block_types=tuple(kinds[a].format("Down") for a in attention),
        up_block_types=tuple(
            kinds[a].format("Up").replace("Encoder", "Decoder")
            for a in reversed(attention)
        ),
        block_out_channels=tuple(
            sizes.base_channels * m for m in sizes.channel_multipliers
        ),
        layers_per_block=sizes.residual_blocks,
        latent_channels=sizes.latent_channels,
        num_vq_embeddings=model.quantizer.codebook_size,
        norm_num_groups=sizes.groups,
        vq_embed_dim=sizes.codebook_dim,
        mid_block_add_attention=sizes.middle_attention,
    ).double()
    twin.load_state_dict(_state(model, levels[-1], twin.state_dict()))
    return twin.eval()


def _state(model, last, like):
    variables = {
        **torch_vqgan.named_variables(model.encoder),
        **torch_vqgan.named_variables(model.decoder),
        "quantize.embedding.weight": model.quantizer.codebook,
    }
    state = {}
    for name, variable in variables.items():
        # Here the lowest level, which runs first, is the first of the list.
        name = re.sub(
            r"\.up\.(\d+)\.", lambda m: f".up.{last - int(m[1])}.", name
        )
        for pattern, replacement in _NAMES:
            name = re.sub(pattern, replacement, name)
        value = torch_vqgan.to_torch(np.asarray(variable))
        # Its attention has linear layers for 1x1 convolutions.
        state[name] = value.reshape(like[name].shape)
    return state


def reconstruct(twin, images):
    """Reconstruction and codes, as arrays, of NHWC images."""
    with torch.no_grad():
        latents = twin.encode(torch_vqgan.images_to_torch(images)).latents
        outputs = twin.decode(latents).sample
        *_, codes = twin.quantize(latents)[2]
    batch, _, height, width = latents.shape
    codes = codes.reshape(batch, height, width).numpy()
    return torch_vqgan.images_from_torch(outputs), codes
