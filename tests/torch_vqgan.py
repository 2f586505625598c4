"""VQGAN's networks in PyTorch, written from the original's description.

Weights are a dictionary with the original's names, in float64.
"""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="compares with PyTorch")
functional = torch.nn.functional


def conv(weights, name, x, **kwargs):
    return functional.conv2d(
        x, weights[f"{name}.weight"], weights[f"{name}.bias"], **kwargs
    )


def norm(weights, name, x, groups):
    return functional.group_norm(
        x,
        groups,
        weights[f"{name}.weight"],
        weights[f"{name}.bias"],
        eps=1e-6,
    )


def swish(x):
    return x * torch.sigmoid(x)


def residual(weights, name, x, groups):
    h = swish(norm(weights, f"{name}.norm1", x, groups))
    h = conv(weights, f"{name}.conv1", h, padding=1)
    h = swish(norm(weights, f"{name}.norm2", h, groups))
    h = conv(weights, f"{name}.conv2", h, padding=1)
    if f"{name}.nin_shortcut.weight" in weights:
        x = conv(weights, f"{name}.nin_shortcut", x)
    return x + h


def attention(weights, name, x, groups):
    h = norm(weights, f"{name}.norm", x, groups)
    q, k, v = (conv(weights, f"{name}.{n}", h).flatten(2) for n in "qkv")
    logits = torch.einsum("bci,bcj->bij", q, k) * x.shape[1] ** -0.5
    h = torch.einsum("bij,bcj->bci", logits.softmax(2), v).reshape(x.shape)
    return x + conv(weights, f"{name}.proj_out", h)


def downsample(weights, name, x):
    x = functional.pad(x, (0, 1, 0, 1))
    return conv(weights, f"{name}.conv", x, stride=2)


def upsample(weights, name, x):
    x = functional.interpolate(x, scale_factor=2.0, mode="nearest")
    return conv(weights, f"{name}.conv", x, padding=1)


def _level(weights, name, x, count, groups):
    for i in range(count):
        x = residual(weights, f"{name}.block.{i}", x, groups)
        if f"{name}.attn.{i}.q.weight" in weights:
            x = attention(weights, f"{name}.attn.{i}", x, groups)
    return x


def _middle(weights, name, x, groups):
    x = residual(weights, f"{name}.mid.block_1", x, groups)
    if f"{name}.mid.attn_1.q.weight" in weights:
        x = attention(weights, f"{name}.mid.attn_1", x, groups)
    return residual(weights, f"{name}.mid.block_2", x, groups)


def encode(weights, x, levels, blocks, groups):
    x = conv(weights, "encoder.conv_in", x, padding=1)
    for i in range(levels):
        x = _level(weights, f"encoder.down.{i}", x, blocks, groups)
        if i < levels - 1:
            x = downsample(weights, f"encoder.down.{i}.downsample", x)
    x = _middle(weights, "encoder", x, groups)
    x = swish(norm(weights, "encoder.norm_out", x, groups))
    x = conv(weights, "encoder.conv_out", x, padding=1)
    return conv(weights, "quant_conv", x)


def decode(weights, x, levels, blocks, groups):
    x = conv(weights, "post_quant_conv", x)
    x = conv(weights, "decoder.conv_in", x, padding=1)
    x = _middle(weights, "decoder", x, groups)
    for i in reversed(range(levels)):
        x = _level(weights, f"decoder.up.{i}", x, blocks + 1, groups)
        if i > 0:
            x = upsample(weights, f"decoder.up.{i}.upsample", x)
    x = swish(norm(weights, "decoder.norm_out", x, groups))
    return conv(weights, "decoder.conv_out", x, padding=1)


# Names and weights

_PARTS = {
    "norm_1": "norm1",
    "conv_1": "conv1",
    "norm_2": "norm2",
    "conv_2": "conv2",
    "shortcut": "nin_shortcut",
    "norm": "norm",
    "query": "q",
    "key": "k",
    "value": "v",
    "projection": "proj_out",
}


def named_variables(network):
    """The original's names and the variables of an encoder or decoder."""
    variables = {}
    for layer in network.layers:
        if layer.weights:
            name = _original_name(network.name, layer.name)
            variables.update(layer_variables(layer, name))
    return variables


def _original_name(network, name):
    if name.endswith("quant_conv"):
        return name
    words = name.replace("attention", "attn").split("_")
    if words[0] in ("down", "up"):
        name = ".".join(words)
    elif words[0] == "mid":
        name = f"mid.{'_'.join(words[1:])}"
    return f"{network}.{name}"


def layer_variables(layer, name):
    """The same of a single layer, whose name is given."""
    parts = [
        (attribute, getattr(layer, attribute, None)) for attribute in _PARTS
    ]
    parts = [(a, part) for a, part in parts if hasattr(part, "weights")]
    if parts:
        return {
            key: variable
            for attribute, part in parts
            for key, variable in layer_variables(
                part, f"{name}.{_PARTS[attribute]}"
            ).items()
        }
    if "sample" in name:
        name = f"{name}.conv"
    first = layer.kernel if hasattr(layer, "kernel") else layer.gamma
    second = layer.bias if hasattr(layer, "kernel") else layer.beta
    return {f"{name}.weight": first, f"{name}.bias": second}


def randomize(variables, seed=0):
    """Random values for Keras' variables: the same as torch's tensors."""
    rng = np.random.default_rng(seed)
    weights = {}
    for name, variable in variables.items():
        values = rng.normal(size=variable.shape)
        if len(variable.shape) == 4:
            values /= np.sqrt(np.prod(variable.shape[:3]))
        else:
            values = 0.3 * values + (name.endswith("weight"))
        variable.assign(values)
        values = to_torch(np.asarray(variable))
        weights[name] = values.requires_grad_()
    return weights


def to_torch(values):
    """Kernels from (height, width, in, out); everything to float64."""
    if np.ndim(values) == 4:
        values = np.asarray(values).transpose(3, 2, 0, 1)
    return torch.tensor(np.array(values)).double()


def images_to_torch(images):
    images = np.asarray(images).transpose(0, 3, 1, 2)
    return torch.tensor(np.array(images)).double().requires_grad_()


def images_from_torch(images):
    return images.detach().numpy().transpose(0, 2, 3, 1)


# Comparison


def assert_close(got, want, tolerance=1e-4, name=""):
    """Equal relative to the largest value."""
    got, want = np.asarray(got, "float64"), np.asarray(want, "float64")
    assert got.shape == want.shape, name
    error = np.abs(got - want).max() / np.abs(want).max()
    assert error < tolerance, f"{name}: {error}"


def assert_same(function, reference, images, variables, weights, seed=3):
    """Outputs, and the gradients of images and weights, are equal.

    Args:
        function: Keras' function of images.
        reference: torch's function of images.
        images: Array, NHWC.
        variables: Keras' variables by name.
        weights: torch's tensors by the same names.
        seed: Integer, for the gradient from above.
    """
    import tensorflow as tf

    inputs = tf.constant(images)
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        outputs = function(inputs)
    upstream = np.random.default_rng(seed).normal(size=outputs.shape)
    sources = [inputs, *(v.value for v in variables.values())]
    upstream = upstream.astype("float32")
    dx, *got = tape.gradient(outputs, sources, tf.constant(upstream))

    x = images_to_torch(images)
    wanted = reference(x)
    for weight in weights.values():
        weight.grad = None
    wanted.backward(images_to_torch(upstream).detach())
    assert_close(outputs, images_from_torch(wanted), name="outputs")
    assert_close(dx, images_from_torch(x.grad), name="images")
    assert list(variables) == list(weights)
    largest = max(weight.grad.abs().max() for weight in weights.values())
    for gradient, (name, weight) in zip(got, weights.items(), strict=True):
        want = weight.grad.numpy()
        if want.ndim == 4:
            want = want.transpose(2, 3, 1, 0)
        # The softmax does not depend on the bias of the keys.
        if name.endswith(".k.bias"):
            assert np.abs(gradient).max() < 1e-4 * largest
        else:
            assert_close(gradient, want, name=name)
