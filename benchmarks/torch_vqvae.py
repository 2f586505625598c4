"""The networks of `keras_vq.models.VQVAE` and their training step in PyTorch.

Written as one would write it in PyTorch for speed: convolutions that pad by
themselves, in-place activations, the codebook updated by `index_add_`, fused
Adam, no value read back during a step.
"""

import torch
import torch.nn.functional as F
from torch import nn


def _relu(x):
    return F.relu(x)


class ResidualBlock(nn.Module):
    """ReLU, 3x3 convolution, ReLU, 1x1 convolution, added to the input."""

    def __init__(self, units, inner, batch_norm, inplace_relu_residual):
        super().__init__()
        self.inplace_relu_residual = inplace_relu_residual
        self.conv_1 = nn.Conv2d(units, inner, 3, padding=1)
        self.conv_2 = nn.Conv2d(inner, units, 1)
        self.norm_1 = nn.BatchNorm2d(inner) if batch_norm else nn.Identity()
        self.norm_2 = nn.BatchNorm2d(units) if batch_norm else nn.Identity()

    def forward(self, x):
        activated = _relu(x)
        skip = activated if self.inplace_relu_residual else x
        y = self.norm_1(self.conv_1(activated))
        return skip + self.norm_2(self.conv_2(_relu(y)))


class Autoencoder(nn.Module):
    """Encoder and decoder; the codebook is state of `TrainingStep`.

    Args:
        config: Dict of the arguments of `keras_vq.models.VQVAE` used here.
    """

    def __init__(self, config: dict):
        super().__init__()
        units, dim = config["hidden_units"], config["codebook_dim"]
        norm = config["use_batch_normalization"]
        bottleneck = config["bottleneck_convolutions"]
        half = units // 2 if bottleneck else units
        channels = config["channels"]

        def blocks():
            return [
                ResidualBlock(
                    units,
                    config["residual_units"],
                    norm,
                    config["inplace_relu_residual"],
                )
                for _ in range(config["residual_blocks"])
            ]

        def normalized(layer, size):
            return [layer, nn.BatchNorm2d(size)] if norm else [layer]

        encoder = normalized(nn.Conv2d(channels, half, 4, 2, 1), half)
        encoder += [nn.ReLU()]
        second = nn.Conv2d(half, units, 4, 2, 1)
        if bottleneck:
            encoder += normalized(second, units)
            encoder += [nn.ReLU(), nn.Conv2d(units, units, 3, padding=1)]
            encoder += [*blocks(), nn.ReLU(), nn.Conv2d(units, dim, 1)]
        else:
            encoder += [second, *blocks()]
        self.encoder = nn.Sequential(*encoder)

        decoder = []
        if bottleneck:
            decoder += [nn.Conv2d(dim, units, 3, padding=1)]
        decoder += [*blocks(), nn.ReLU()]
        decoder += normalized(nn.ConvTranspose2d(units, half, 4, 2, 1), half)
        decoder += [nn.ReLU(), nn.ConvTranspose2d(half, channels, 4, 2, 1)]
        if config["output_activation"] == "tanh":
            decoder += [nn.Tanh()]
        self.decoder = nn.Sequential(*decoder)

    def load(self, arrays):
        """Takes the trainable weights of the Keras model, in its order."""
        parameters = list(self.parameters())
        if len(parameters) != len(arrays):
            raise ValueError(f"{len(parameters)} weights, not {len(arrays)}")
        with torch.no_grad():
            for parameter, array in zip(parameters, arrays, strict=True):
                value = torch.from_numpy(array)
                if value.ndim == 4:
                    value = value.permute(3, 2, 0, 1)
                parameter.copy_(value)


class TrainingStep:
    """One step: losses, gradients, Adam, EMA codebook and running metrics.

    Args:
        config: As of `Autoencoder`.
        arrays: Trainable weights of the Keras model, in its order.
        codebook: Array of shape `(codebook_size, codebook_dim)`.
        memory_format: `torch.contiguous_format` or `torch.channels_last`.
        compiled: Whether to use `torch.compile`.
    """

    decay, epsilon, commitment_weight = 0.99, 1e-5, 0.25

    def __init__(self, config, arrays, codebook, memory_format, compiled):
        self.model = Autoencoder(config)
        self.model.load(arrays)
        self.model.train().to(memory_format=memory_format)
        self.memory_format = memory_format
        self.codebook = torch.from_numpy(codebook).clone()
        self.sums = self.codebook.clone()
        self.size = len(codebook)
        self.counts = torch.ones(self.size)
        self.totals = torch.zeros(3)
        self.used = torch.zeros(self.size)
        self.optimizer = torch.optim.Adam(
            self.model.parameters(), lr=1e-3, eps=1e-7, fused=True
        )
        self.losses, self.update = self._losses, self._update
        if compiled:
            self.losses = torch.compile(self._losses)
            self.update = torch.compile(self._update)

    def batch(self, images):
        """NHWC array as an input of this step."""
        images = torch.from_numpy(images).permute(0, 3, 1, 2)
        return images.contiguous(memory_format=self.memory_format)

    def __call__(self, images):
        self.optimizer.zero_grad(set_to_none=True)
        loss, *rest = self.losses(images)
        loss.backward()
        self.optimizer.step()
        return self.update(loss.detach(), *rest)

    def _losses(self, images):
        latents = self.model.encoder(images).permute(0, 2, 3, 1)
        flat = latents.reshape(-1, latents.shape[-1])
        with torch.no_grad():
            norms = self.codebook.square().sum(1)
            distances = torch.addmm(norms, flat, self.codebook.T, alpha=-2)
            indices = distances.argmin(1)
            codes = F.embedding(indices, self.codebook).view(latents.shape)
        commitment = F.mse_loss(latents, codes)
        quantized = latents + (codes - latents).detach()
        output = self.model.decoder(quantized.permute(0, 3, 1, 2))
        reconstruction = F.mse_loss(output, images)
        loss = reconstruction + self.commitment_weight * commitment
        return (
            loss,
            reconstruction.detach(),
            commitment.detach(),
            flat.detach(),
            indices,
        )

    @torch.no_grad()
    def _update(self, loss, reconstruction, commitment, flat, indices):
        ones = torch.ones(len(indices))
        counts = torch.zeros(self.size).index_add_(0, indices, ones)
        sums = torch.zeros_like(self.sums).index_add_(0, indices, flat)
        self.counts.lerp_(counts, 1 - self.decay)
        self.sums.lerp_(sums, 1 - self.decay)
        total = self.counts.sum()
        smoothed = (self.counts + self.epsilon) * total
        smoothed /= total + self.size * self.epsilon
        self.codebook.copy_(self.sums / smoothed[:, None])
        # What `fit` of keras_vq logs.
        self.totals += torch.stack([loss, reconstruction, commitment])
        self.used += counts
        share = self.used / self.used.sum()
        entropy = -torch.special.xlogy(share, share).sum()
        return {
            "loss": loss,
            "means": self.totals,
            "perplexity": entropy.exp(),
            "codes_used": (self.used > 0).sum(),
        }
