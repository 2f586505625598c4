"""The papers' networks in PyTorch, written from their descriptions.

Two networks are here: that of DeepMind's example (Sonnet) and its ports, and
that of Kumar et al.'s reproduction with batch normalization.
"""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="compares with PyTorch")
nn, functional = torch.nn, torch.nn.functional


class Residual(nn.Module):
    """ReLU, 3x3, [BN], ReLU, 1x1, [BN], added to the input."""

    def __init__(self, channels, inner, normalized=False, inplace=False):
        super().__init__()
        self.inplace = inplace
        self.conv_1 = nn.Conv2d(channels, inner, 3, 1, 1)
        self.norm_1 = nn.BatchNorm2d(inner) if normalized else nn.Identity()
        self.conv_2 = nn.Conv2d(inner, channels, 1)
        self.norm_2 = nn.BatchNorm2d(channels) if normalized else nn.Identity()

    def forward(self, x):
        # In place, the first ReLU also changes what is added in the end.
        y = functional.relu(x.clone(), inplace=True)
        skip = y if self.inplace else x
        y = functional.relu(self.norm_1(self.conv_1(y)))
        return skip + self.norm_2(self.conv_2(y))


def sonnet_encoder(channels, units, inner, dim, inplace=False):
    return nn.Sequential(
        nn.Conv2d(channels, units // 2, 4, 2, 1),
        nn.ReLU(),
        nn.Conv2d(units // 2, units, 4, 2, 1),
        nn.ReLU(),
        nn.Conv2d(units, units, 3, 1, 1),
        Residual(units, inner, inplace=inplace),
        Residual(units, inner, inplace=inplace),
        nn.ReLU(),
        nn.Conv2d(units, dim, 1),
    )


def sonnet_decoder(channels, units, inner, dim, inplace=False):
    return nn.Sequential(
        nn.Conv2d(dim, units, 3, 1, 1),
        Residual(units, inner, inplace=inplace),
        Residual(units, inner, inplace=inplace),
        nn.ReLU(),
        nn.ConvTranspose2d(units, units // 2, 4, 2, 1),
        nn.ReLU(),
        nn.ConvTranspose2d(units // 2, channels, 4, 2, 1),
    )


def kumar_encoder(channels, units, inner, dim):
    assert dim == units
    return nn.Sequential(
        nn.Conv2d(channels, units, 4, 2, 1),
        nn.BatchNorm2d(units),
        nn.ReLU(),
        nn.Conv2d(units, units, 4, 2, 1),
        Residual(units, inner, normalized=True, inplace=True),
        Residual(units, inner, normalized=True, inplace=True),
    )


def kumar_decoder(channels, units, inner, dim):
    assert dim == units
    return nn.Sequential(
        Residual(units, inner, normalized=True, inplace=True),
        Residual(units, inner, normalized=True, inplace=True),
        nn.ReLU(),
        nn.ConvTranspose2d(units, units, 4, 2, 1),
        nn.BatchNorm2d(units),
        nn.ReLU(),
        nn.ConvTranspose2d(units, channels, 4, 2, 1),
        nn.Tanh(),
    )


class Autoencoder(nn.Module):
    """Encoder, nearest code, decoder; the codes learn by gradient."""

    def __init__(self, encoder, codebook, decoder):
        super().__init__()
        self.encoder = encoder
        self.codebook = nn.Parameter(codebook)
        self.decoder = decoder

    def forward(self, images):
        z = self.encoder(images).permute(0, 2, 3, 1)
        flat = z.reshape(-1, z.shape[-1])
        indices = torch.cdist(flat, self.codebook).argmin(1)
        q = self.codebook[indices].reshape(z.shape)
        losses = {
            "commitment_loss": functional.mse_loss(z, q.detach()),
            "codebook_loss": functional.mse_loss(q, z.detach()),
        }
        passed = z + (q - z).detach()
        reconstruction = self.decoder(passed.permute(0, 3, 1, 2))
        losses["reconstruction_loss"] = functional.mse_loss(
            reconstruction, images
        )
        return reconstruction, indices.reshape(z.shape[:-1]), flat, losses


# Weights


def leaves(network):
    """The layers of a Keras network that have weights, in order."""
    for layer in network.layers:
        if hasattr(layer, "residual_units"):
            parts = (layer.conv_1, layer.norm_1, layer.conv_2, layer.norm_2)
            yield from (part for part in parts if part is not None)
        elif layer.weights:
            yield layer


def torch_leaves(network):
    """The same of a torch network."""
    kinds = (nn.Conv2d, nn.ConvTranspose2d, nn.BatchNorm2d)
    return (m for m in network.modules() if isinstance(m, kinds))


def to_keras(kernel):
    """(out, in, kh, kw), of transposed ones (in, out, kh, kw)."""
    return np.asarray(kernel).transpose(2, 3, 1, 0)


def to_torch(kernel):
    return torch.tensor(np.asarray(kernel).transpose(3, 2, 0, 1))


def copy_to_torch(keras_network, torch_network):
    """Puts the weights of one into the other and makes it float64."""
    pairs = zip(leaves(keras_network), torch_leaves(torch_network), strict=True)
    for layer, module in pairs:
        values = [torch.tensor(np.asarray(w)) for w in layer.weights]
        if isinstance(module, nn.BatchNorm2d):
            names = ("weight", "bias", "running_mean", "running_var")
        else:
            names = ("weight", "bias")
            values[0] = to_torch(layer.kernel)
        for name, value in zip(names, values, strict=True):
            assert getattr(module, name).shape == value.shape
            getattr(module, name).data = value.double()
    return torch_network.double()


def images_to_torch(images):
    return torch.tensor(np.asarray(images).transpose(0, 3, 1, 2)).double()


def images_from_torch(images):
    return images.detach().numpy().transpose(0, 2, 3, 1)
