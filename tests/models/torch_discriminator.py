"""The PatchGAN discriminator in PyTorch, written from its description."""

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="compares with PyTorch")
nn = torch.nn


class ActNorm(nn.Module):
    """Scale times (input plus shift), both set from the first batch."""

    def __init__(self, channels):
        super().__init__()
        self.loc = nn.Parameter(torch.zeros(1, channels, 1, 1))
        self.scale = nn.Parameter(torch.ones(1, channels, 1, 1))

    def start(self, x):
        rows = x.detach().transpose(0, 1).flatten(1)
        shape = self.loc.shape
        self.loc.data = -rows.mean(1).reshape(shape)
        self.scale.data = 1 / (rows.std(1).reshape(shape) + 1e-6)

    def forward(self, x):
        return self.scale * (x + self.loc)


_NORMS = {
    "batch": nn.BatchNorm2d,
    "act": ActNorm,
    "group": lambda channels: nn.GroupNorm(math.gcd(32, channels), channels),
}


def patch_gan(filters, num_layers, channels, normalization, spectral=False):
    """4x4 convolutions, padding 1: `num_layers` of stride 2, two of 1."""

    def conv(*args, **kwargs):
        layer = nn.Conv2d(*args, kernel_size=4, padding=1, **kwargs)
        if spectral:
            torch.nn.utils.parametrizations.spectral_norm(layer)
        return layer

    main = [conv(channels, filters, stride=2), nn.LeakyReLU(0.2)]
    inputs = filters
    for n in range(1, num_layers + 1):
        outputs = filters * min(2**n, 8)
        stride = 2 if n < num_layers else 1
        bias = normalization != "batch"
        main.append(conv(inputs, outputs, stride=stride, bias=bias))
        if normalization is not None:
            main.append(_NORMS[normalization](outputs))
        main.append(nn.LeakyReLU(0.2))
        inputs = outputs
    network = nn.Module()
    network.main = nn.Sequential(*main, conv(inputs, 1))
    return network.double()


def parameters_in_order(network) -> list:
    """Trained parameters as Keras keeps them: (kh, kw, in, out) or (n,)."""
    return [as_keras(parameter) for _, parameter in network.named_parameters()]


def as_keras(tensor):
    array = tensor.detach().numpy()
    # Kernels, and what ActNorm has for each channel.
    if array.ndim == 4 and array.shape[2:] == (4, 4):
        return array.transpose(2, 3, 1, 0)
    return array.reshape(-1)


def copy_to_torch(discriminator, network):
    """Puts the weights of a Keras discriminator into that of torch.

    `main[i]` of one is `main.i` of the other.
    """
    names = {"kernel": "weight", "gamma": "weight", "beta": "bias"}
    for layer, module in zip(discriminator.main, network.main, strict=True):
        for weight in layer.trainable_weights:
            name = names.get(weight.name, weight.name)
            value = torch.tensor(np.asarray(weight)).double()
            if name == "weight" and value.ndim == 4:
                value = value.permute(3, 2, 0, 1)
            if hasattr(module, "parametrizations") and name == "weight":
                target = module.parametrizations.weight.original
            else:
                target = getattr(module, name)
            target.data = value.reshape(target.shape).contiguous()
        if hasattr(layer, "moving_mean"):
            module.running_mean.data = torch.tensor(
                np.asarray(layer.moving_mean)
            ).double()
            module.running_var.data = torch.tensor(
                np.asarray(layer.moving_variance)
            ).double()
        if hasattr(layer, "u"):
            vectors = module.parametrizations.weight[0]
            channels = layer.kernel.shape[2]
            v = torch.tensor(np.asarray(layer.v)).reshape(4, 4, channels)
            vectors._u.data = torch.tensor(np.asarray(layer.u)).double()
            vectors._v.data = v.permute(2, 0, 1).reshape(-1).double()


def images_to_torch(images):
    return torch.tensor(np.asarray(images).transpose(0, 3, 1, 2)).double()
