"""Networks of other programs in PyTorch, with the names that these use.

Written from descriptions of the originals; weights are random.
"""

import contextlib
import warnings

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="compares with PyTorch")
nn, functional = torch.nn, torch.nn.functional


def randomized(module, seed=0):
    """Gives every parameter and buffer a random value."""
    generator = torch.Generator().manual_seed(seed)
    state = module.state_dict()
    for name, value in state.items():
        if not value.is_floating_point():
            continue
        noise = torch.randn(value.shape, generator=generator)
        if value.ndim == 4:
            noise *= (2 / value[0].numel()) ** 0.5
        elif name.endswith(("running_var", "cluster_size")):
            noise = 0.5 + torch.rand(value.shape, generator=generator)
        elif value.ndim == 1:
            noise = 0.2 * noise + name.endswith("weight")
        value.copy_(noise)
    return module.eval()


def nearest(latents, codes):
    """Codes (dim last) and quantized latents (dim second)."""
    flat = latents.permute(0, 2, 3, 1)
    distances = (flat[..., None, :] - codes).square().sum(-1)
    indices = distances.argmin(-1)
    return indices, codes[indices].permute(0, 3, 1, 2)


def spread(latents, codes):
    """Makes codes of some of the latents, so that many of them are used."""
    flat = latents.permute(0, 2, 3, 1).reshape(-1, codes.shape[1])
    rows = torch.linspace(0, len(flat) - 1, len(codes)).long()
    codes.copy_(flat[rows])


def swap(images):
    """NHWC arrays to NCHW tensors."""
    return torch.tensor(np.asarray(images).transpose(0, 3, 1, 2))


def back(tensor):
    return tensor.detach().numpy().transpose(0, 2, 3, 1)


class InPlaceBlock(nn.Module):
    """The skip path carries what the first ReLU has made of it."""

    def __init__(self, *layers, name="_block"):
        super().__init__()
        self._name = name
        setattr(self, name, nn.Sequential(nn.ReLU(True), *layers))

    def forward(self, x):
        return x + getattr(self, self._name)(x)


# swasun


class Stack(nn.Module):
    """One block in a list that repeats it."""

    def __init__(self, units, inner, passes):
        super().__init__()
        block = InPlaceBlock(
            nn.Conv2d(units, inner, 3, 1, 1, bias=False),
            nn.ReLU(True),
            nn.Conv2d(inner, units, 1, bias=False),
        )
        self._layers = nn.ModuleList([block] * passes)

    def forward(self, x):
        for layer in self._layers:
            x = layer(x)
        return functional.relu(x)


class SwasunEncoder(nn.Module):
    def __init__(self, units, inner, passes):
        super().__init__()
        self._conv_1 = nn.Conv2d(3, units // 2, 4, 2, 1)
        self._conv_2 = nn.Conv2d(units // 2, units, 4, 2, 1)
        self._conv_3 = nn.Conv2d(units, units, 3, 1, 1)
        self._residual_stack = Stack(units, inner, passes)

    def forward(self, x):
        x = functional.relu(self._conv_1(x))
        x = functional.relu(self._conv_2(x))
        return self._residual_stack(self._conv_3(x))


class SwasunDecoder(nn.Module):
    def __init__(self, units, inner, dim, passes):
        super().__init__()
        self._conv_1 = nn.Conv2d(dim, units, 3, 1, 1)
        self._residual_stack = Stack(units, inner, passes)
        self._conv_trans_1 = nn.ConvTranspose2d(units, units // 2, 4, 2, 1)
        self._conv_trans_2 = nn.ConvTranspose2d(units // 2, 3, 4, 2, 1)

    def forward(self, x):
        x = self._residual_stack(self._conv_1(x))
        return self._conv_trans_2(functional.relu(self._conv_trans_1(x)))


class Swasun(nn.Module):
    def __init__(self, units=16, inner=8, dim=4, codes=12, passes=2, ema=True):
        super().__init__()
        self._encoder = SwasunEncoder(units, inner, passes)
        self._pre_vq_conv = nn.Conv2d(units, dim, 1)
        self._vq_vae = nn.Module()
        if ema:
            self._vq_vae._ema_w = nn.Parameter(torch.zeros(codes, dim))
            self._vq_vae.register_buffer(
                "_ema_cluster_size", torch.zeros(codes)
            )
        self._vq_vae._embedding = nn.Embedding(codes, dim)
        self._decoder = SwasunDecoder(units, inner, dim, passes)
        randomized(self)
        for name, parameter in self.named_parameters():
            if "_layers" in name:  # What is added so often grows.
                parameter.data *= 0.2

    def start(self, images):
        latents = self._pre_vq_conv(self._encoder(images))
        spread(latents, self._vq_vae._embedding.weight.data)

    def forward(self, images):
        latents = self._pre_vq_conv(self._encoder(images))
        codes, quantized = nearest(latents, self._vq_vae._embedding.weight)
        return codes, self._decoder(quantized)


def with_weight_normalization(module):
    """Kernels of all convolutions but the projection become pairs."""
    with contextlib.suppress(AttributeError):
        # Another name for one layer, as the published files have it.
        module._encoder._conv3 = module._encoder._conv_3
    for name, layer in module.named_modules():
        if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)):
            if name != "_pre_vq_conv":
                with warnings.catch_warnings():
                    # The way of old, which the published files show.
                    warnings.simplefilter("ignore", FutureWarning)
                    torch.nn.utils.weight_norm(layer)
                layer.weight_g.data *= 1.3
    return module


# ritheshkumar95


def kumar_block(units):
    return InPlaceBlock(
        nn.Conv2d(units, units, 3, 1, 1),
        nn.BatchNorm2d(units),
        nn.ReLU(True),
        nn.Conv2d(units, units, 1),
        nn.BatchNorm2d(units),
        name="block",
    )


class Kumar(nn.Module):
    def __init__(self, units=8, codes=12):
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(3, units, 4, 2, 1),
            nn.BatchNorm2d(units),
            nn.ReLU(True),
            nn.Conv2d(units, units, 4, 2, 1),
            kumar_block(units),
            kumar_block(units),
        )
        self.codebook = nn.Module()
        self.codebook.embedding = nn.Embedding(codes, units)
        self.decoder = nn.Sequential(
            kumar_block(units),
            kumar_block(units),
            nn.ReLU(True),
            nn.ConvTranspose2d(units, units, 4, 2, 1),
            nn.BatchNorm2d(units),
            nn.ReLU(True),
            nn.ConvTranspose2d(units, 3, 4, 2, 1),
            nn.Tanh(),
        )
        randomized(self)

    def start(self, images):
        spread(self.encoder(images), self.codebook.embedding.weight.data)

    def forward(self, images):
        latents = self.encoder(images)
        codes, quantized = nearest(latents, self.codebook.embedding.weight)
        return codes, self.decoder(quantized)


# rosinality


class RosinalityBlock(nn.Module):
    def __init__(self, units, inner, inplace):
        super().__init__()
        self.conv = nn.Sequential(
            nn.ReLU(inplace=inplace),
            nn.Conv2d(units, inner, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(inner, units, 1),
        )

    def forward(self, x):
        return self.conv(x) + x


class Blocks(nn.Module):
    def __init__(self, *layers):
        super().__init__()
        self.blocks = nn.Sequential(*layers)

    def forward(self, x):
        return self.blocks(x)


class Quantize(nn.Module):
    def __init__(self, dim, codes):
        super().__init__()
        self.register_buffer("embed", torch.zeros(dim, codes))
        self.register_buffer("cluster_size", torch.zeros(codes))
        self.register_buffer("embed_avg", torch.zeros(dim, codes))

    def forward(self, latents):
        return nearest(latents, self.embed.T)


class Rosinality(nn.Module):
    def __init__(self, units=16, inner=6, dim=4, codes=12, inplace=True):
        super().__init__()
        half = units // 2

        def stack():
            blocks = [RosinalityBlock(units, inner, inplace) for _ in "12"]
            return [*blocks, nn.ReLU(inplace=True)]

        def halving(inputs, outputs):
            layer = nn.Conv2d(inputs, outputs, 4, stride=2, padding=1)
            return [layer, nn.ReLU(inplace=True)]

        def doubling(inputs, outputs):
            return nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1)

        def conv(inputs):
            return nn.Conv2d(inputs, units, 3, padding=1)

        self.enc_b = Blocks(
            *halving(3, half), *halving(half, units), conv(units), *stack()
        )
        self.enc_t = Blocks(*halving(units, half), conv(half), *stack())
        self.quantize_conv_t = nn.Conv2d(units, dim, 1)
        self.quantize_t = Quantize(dim, codes)
        self.dec_t = Blocks(conv(dim), *stack(), doubling(units, dim))
        self.quantize_conv_b = nn.Conv2d(dim + units, dim, 1)
        self.quantize_b = Quantize(dim, codes)
        self.upsample_t = doubling(dim, dim)
        self.dec = Blocks(
            conv(2 * dim),
            *stack(),
            doubling(units, half),
            nn.ReLU(inplace=True),
            doubling(half, 3),
        )
        randomized(self)

    def start(self, images):
        self(images, start=True)

    def forward(self, images, start=False):
        bottom = self.enc_b(images)
        latents = self.quantize_conv_t(self.enc_t(bottom))
        if start:
            spread(latents, self.quantize_t.embed.T)
        codes_t, top = self.quantize_t(latents)
        context = self.dec_t(top)
        latents = self.quantize_conv_b(torch.cat([context, bottom], 1))
        if start:
            spread(latents, self.quantize_b.embed.T)
        codes_b, fine = self.quantize_b(latents)
        both = torch.cat([self.upsample_t(top), fine], 1)
        return [codes_t, codes_b], self.dec(both)
