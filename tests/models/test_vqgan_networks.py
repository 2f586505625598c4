"""VQGAN's encoder and decoder against PyTorch and published numbers."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import torch_vqgan as reference

from keras_vq.models.vqgan_networks import VQGANNetworks

SMALL = {
    "base_channels": 32,
    "channel_multipliers": (1, 2),
    "residual_blocks": 1,
    "attention_factors": (2,),
    "latent_channels": 8,
    "codebook_dim": 4,
    "groups": 8,
}


def _images(*shape, seed=0):
    rng = np.random.default_rng(seed)
    return rng.uniform(-1, 1, shape).astype("float32")


def _count(*networks):
    return sum(np.prod(w.shape) for n in networks for w in n.weights)


def test_size_of_the_network_for_imagenet():
    """72,141,699 parameters in 343 tensors, with 1,024 codes of 256."""
    networks = VQGANNetworks()
    assert networks.downsample_factor == 16
    encoder, decoder = networks.encoder(), networks.decoder()
    assert _count(encoder, decoder) + 1024 * 256 == 72_141_699
    names = {
        name: tuple(variable.shape)
        for network in (encoder, decoder)
        for name, variable in reference.named_variables(network).items()
    }
    assert len(names) + 1 == 343
    assert len(encoder.weights) + len(decoder.weights) == len(names)
    shortcuts = {
        name: shape[2:]
        for name, shape in names.items()
        if name.endswith("nin_shortcut.weight")
    }
    assert shortcuts == {
        "encoder.down.2.block.0.nin_shortcut.weight": (128, 256),
        "encoder.down.4.block.0.nin_shortcut.weight": (256, 512),
        "decoder.up.3.block.0.nin_shortcut.weight": (512, 256),
        "decoder.up.1.block.0.nin_shortcut.weight": (256, 128),
    }
    queries = [name for name in names if name.endswith(".q.weight")]
    assert queries == [
        "encoder.down.4.attn.0.q.weight",
        "encoder.down.4.attn.1.q.weight",
        "encoder.mid.attn_1.q.weight",
        "decoder.mid.attn_1.q.weight",
        "decoder.up.4.attn.0.q.weight",
        "decoder.up.4.attn.1.q.weight",
        "decoder.up.4.attn.2.q.weight",
    ]
    assert names["encoder.conv_out.weight"] == (3, 3, 512, 256)
    assert names["decoder.up.4.upsample.conv.weight"] == (3, 3, 512, 512)
    assert "decoder.up.0.upsample.conv.weight" not in names
    assert "encoder.down.4.downsample.conv.weight" not in names


def test_order_of_the_weights():
    """The decoder's lowest level runs first, under the highest number."""
    decoder = VQGANNetworks(**SMALL).decoder()
    names = [layer.name for layer in decoder.layers if layer.weights]
    assert names == [
        "post_quant_conv",
        "conv_in",
        "mid_block_1",
        "mid_attention_1",
        "mid_block_2",
        "up_1_block_0",
        "up_1_attention_0",
        "up_1_block_1",
        "up_1_attention_1",
        "up_1_upsample",
        "up_0_block_0",
        "up_0_block_1",
        "norm_out",
        "conv_out",
    ]


@pytest.mark.parametrize("size", [(64, 48), (13, 6)])
@pytest.mark.parametrize("which", ["encoder", "decoder"])
def test_equals_torch(which, size):
    """Known sizes, and in a graph that knows none; odd ones too."""
    network = getattr(VQGANNetworks(**SMALL), which)()
    variables = reference.named_variables(network)
    weights = reference.randomize(variables)
    assert network.count_params() == sum(w.numel() for w in weights.values())
    channels, function = 3, reference.encode
    if which == "decoder":
        channels, function = 4, reference.decode
        size = (size[0] // 2, size[1] // 2)
    known = size[0] % 2 == 0
    signature = [tf.TensorSpec((None, None, None, channels))]
    reference.assert_same(
        network if known else tf.function(network, input_signature=signature),
        lambda x: function(weights, x, levels=2, blocks=1, groups=8),
        _images(1, *size, channels),
        variables,
        weights,
    )


@pytest.mark.parametrize(
    "arguments",
    [
        {"attention_factors": (), "middle_attention": False, "channels": 1},
        {"channel_multipliers": (1,), "attention_factors": (1,)},
        {"channel_multipliers": (2, 1, 1), "attention_factors": (2, 4)},
        {"base_channels": 12, "groups": 4, "residual_blocks": 2},
    ],
)
def test_other_arguments(arguments):
    arguments = {**SMALL, "base_channels": 8, **arguments}
    networks = VQGANNetworks(**arguments)
    encoder, decoder = networks.encoder(), networks.decoder()
    variables = reference.named_variables(encoder)
    variables.update(reference.named_variables(decoder))
    weights = reference.randomize(variables)
    sizes = {
        "levels": len(networks.channel_multipliers),
        "blocks": networks.residual_blocks,
        "groups": networks.groups,
    }
    queries = [name for name in variables if name.endswith(".q.weight")]
    blocks = 2 * networks.residual_blocks + 1
    assert len(queries) == (
        blocks * len(networks.attention_factors) + 2 * networks.middle_attention
    )
    images = _images(1, 8, 12, networks.channels)
    with reference.torch.no_grad():
        latents = reference.encode(
            weights, reference.images_to_torch(images), **sizes
        )
        want = reference.decode(weights, latents, **sizes)
    got = encoder(images)
    factor = networks.downsample_factor
    assert got.shape == (1, 8 // factor, 12 // factor, 4)
    reference.assert_close(got, reference.images_from_torch(latents))
    reference.assert_close(decoder(got), reference.images_from_torch(want))


def test_configuration():
    networks = VQGANNetworks(**SMALL, gradient_checkpointing=True)
    inputs = (_images(1, 8, 12, 3), _images(1, 4, 6, 4))
    for network, x in zip(
        (networks.encoder(), networks.decoder()), inputs, strict=True
    ):
        again = keras.Model.from_config(network.get_config())
        again.set_weights(network.get_weights())
        np.testing.assert_array_equal(again(x), network(x))
        names = [layer.name for layer in network.layers]
        assert [layer.name for layer in again.layers] == names
        for layer in again.layers:
            if hasattr(layer, "gradient_checkpointing"):
                assert layer.gradient_checkpointing and layer.groups == 8


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision(policy):
    networks = VQGANNetworks(**SMALL, dtype=policy)
    tolerance = {"mixed_float16": 1e-2, "mixed_bfloat16": 6e-2}[policy]
    for name, x in (
        ("encoder", _images(1, 8, 12, 3)),
        ("decoder", _images(1, 4, 6, 4)),
    ):
        network = getattr(networks, name)()
        assert {str(w.dtype) for w in network.weights} == {"float32"}
        policies = {
            part.dtype_policy.name
            for part in network._flatten_layers(include_self=False)
            if not isinstance(part, keras.layers.InputLayer)
        }
        assert policies == {policy}
        outputs = network(x)
        assert outputs.dtype == policy.removeprefix("mixed_")
        exact = getattr(VQGANNetworks(**SMALL), name)()
        exact.set_weights(network.get_weights())
        outputs = keras.ops.cast(outputs, "float32")
        reference.assert_close(outputs, exact(x), tolerance)


def test_gradient_checkpointing():
    images = tf.constant(_images(1, 8, 12, 3))
    results = []
    weights = None
    for checkpointing in (False, True):
        network = VQGANNetworks(
            **SMALL, gradient_checkpointing=checkpointing
        ).encoder()
        if weights is not None:
            network.set_weights(weights)
        weights = network.get_weights()

        @tf.function
        def step(x, network=network):
            with tf.GradientTape() as tape:
                total = tf.reduce_sum(network(x, training=True) ** 2)
            return tape.gradient(
                total, [w.value for w in network.trainable_weights]
            )

        results.append(step(images))
    for got, want in zip(*results, strict=True):
        scale = np.abs(want).max() + 1e-3
        np.testing.assert_allclose(got / scale, want / scale, atol=1e-4)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"channel_multipliers": ()}, r"positive.*channel_multipliers=\(\)"),
        ({"channel_multipliers": (1, 0)}, r"positive.*=\(1, 0\)"),
        ({"base_channels": 48}, "groups=32, base_channels=48"),
        ({"groups": 0}, "groups=0"),
        ({"attention_factors": (32,)}, r"among \[1, 2, 4, 8, 16\].*\(32,\)"),
    ],
)
def test_sizes_that_do_not_fit(arguments, message):
    with pytest.raises(ValueError, match=message):
        VQGANNetworks(**arguments)
