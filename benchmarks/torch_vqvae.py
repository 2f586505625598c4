"""The networks of `keras_vq.models.VQVAE` and their training step in PyTorch.

Written as one would write it in PyTorch for speed: convolutions that pad by
themselves, in-place activations, the codebook updated by `index_add_`, fused
Adam, no value read back during a step.
"""

import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.torch_running import Peer


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
    """Encoder and decoder; codebooks are state of `TrainingStep`.

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

    def encode(self, images, quantize) -> list:
        """Quantized latents of each level; here there is one."""
        return [quantize(self.encoder(images))]

    def decode(self, quantized):
        """Images of what `encode` gives."""
        return self.decoder(quantized[0])


def load(model, arrays):
    """Gives a network the weights of the Keras model, in its order."""
    parameters = list(model.parameters())
    if len(parameters) != len(arrays):
        raise ValueError(f"{len(parameters)} weights, not {len(arrays)}")
    with torch.no_grad():
        for parameter, array in zip(parameters, arrays, strict=True):
            value = torch.from_numpy(array)
            if value.ndim == 4:
                value = value.permute(3, 2, 0, 1)
            parameter.copy_(value)


class TrainingStep(Peer):
    """One step: losses, gradients, Adam, EMA codebooks and running metrics.

    Args:
        model: `Autoencoder`, or another network with its `encode` and
            `decode`.
        codebooks: Arrays of shape `(codebook_size, codebook_dim)`, one for
            each level, in the order in which `encode` quantizes them.
        running: `benchmarks.torch_running.Running`.
    """

    decay, epsilon, commitment_weight = 0.99, 1e-5, 0.25

    def __init__(self, model, codebooks, running):
        self.running = running
        self.model = running.take(model)
        device = running.device
        self.codebooks = [torch.tensor(c, device=device) for c in codebooks]
        self.sums = [codebook.clone() for codebook in self.codebooks]
        sizes = [len(codebook) for codebook in codebooks]
        self.counts = [torch.ones(size, device=device) for size in sizes]
        self.used = [torch.zeros(size, device=device) for size in sizes]
        self.totals = torch.zeros(3, device=device)
        self.optimizer = running.adam(self.model.parameters(), lr=1e-3)
        self.losses = running.compile(self._losses)
        self.update = running.compile(self._update)
        self.codes = running.compile(self._codes)
        self.images = running.compile(self._images)

    def __call__(self, images):
        self.running.begin()
        self.optimizer.zero_grad(set_to_none=True)
        loss, *rest = self.losses(images)
        loss.backward()
        self.optimizer.step()
        return self.update(loss.detach(), *rest)

    def _search(self, level, latents):
        """NHWC latents in float32, their codes, and which those are."""
        with self.running.float32():
            latents = latents.permute(0, 2, 3, 1).float()
            flat = latents.reshape(-1, latents.shape[-1])
            codebook = self.codebooks[level]
            with torch.no_grad():
                norms = codebook.square().sum(1)
                distances = torch.addmm(norms, flat, codebook.T, alpha=-2)
                indices = distances.argmin(1)
                codes = F.embedding(indices, codebook).view(latents.shape)
        return latents, codes, indices

    def _losses(self, images):
        commitments, found = [], []

        def quantize(latents):
            latents, codes, indices = self._search(len(found), latents)
            flat = latents.detach().reshape(-1, latents.shape[-1])
            found.append((flat, indices))
            commitments.append(F.mse_loss(latents, codes))
            quantized = latents + (codes - latents).detach()
            return quantized.permute(0, 3, 1, 2)

        with self.running.networks():
            output = self.model.decode(self.model.encode(images, quantize))
        commitment = sum(commitments)
        reconstruction = F.mse_loss(output.float(), images)
        loss = reconstruction + self.commitment_weight * commitment
        return loss, reconstruction.detach(), commitment.detach(), found

    @torch.no_grad()
    def _update(self, loss, reconstruction, commitment, found):
        for level, (flat, indices) in enumerate(found):
            self._update_codebook(level, flat, indices)
        # What `fit` of keras_vq logs.
        self.totals += torch.stack([loss, reconstruction, commitment])
        perplexities = []
        for used in self.used:
            share = used / used.sum()
            perplexities.append((-torch.special.xlogy(share, share)).sum())
        return {
            "loss": loss,
            "reconstruction_loss": reconstruction,
            "commitment_loss": commitment,
            "means": self.totals,
            "perplexity": [entropy.exp() for entropy in perplexities],
            "codes_used": [(used > 0).sum() for used in self.used],
        }

    def _update_codebook(self, level, flat, indices):
        size = len(self.codebooks[level])
        own_counts, own_sums = self.counts[level], self.sums[level]
        ones = torch.ones_like(flat[:, 0])
        counts = torch.zeros_like(own_counts).index_add_(0, indices, ones)
        sums = torch.zeros_like(own_sums).index_add_(0, indices, flat)
        own_counts.lerp_(counts, 1 - self.decay)
        own_sums.lerp_(sums, 1 - self.decay)
        total = own_counts.sum()
        smoothed = (own_counts + self.epsilon) * total
        smoothed /= total + size * self.epsilon
        self.codebooks[level].copy_(own_sums / smoothed[:, None])
        self.used[level] += counts

    def _codes(self, images):
        maps = []

        def quantize(latents):
            _, codes, indices = self._search(len(maps), latents)
            maps.append(indices.view(codes.shape[:-1]))
            return codes.permute(0, 3, 1, 2)

        with self.running.networks():
            self.model.encode(images, quantize)
        return maps

    def _images(self, codes):
        quantized = [
            F.embedding(level, codebook).permute(0, 3, 1, 2)
            for level, codebook in zip(codes, self.codebooks, strict=True)
        ]
        with self.running.networks():
            return self.model.decode(quantized)


def required_flops(made, size, batch_size) -> dict:
    """Operations of a step, an encode and a decode, as torch counts them.

    Those of convolutions and matrix products, forward and backward.

    Args:
        made: `TrainingStep` that runs on `"meta"`.
        size: Integer, side of an image.
        batch_size: Integer.
    """
    from torch.utils.flop_counter import FlopCounterMode

    images = torch.empty((batch_size, 3, size, size), device="meta")
    with FlopCounterMode(display=False) as step:
        made._losses(images)[0].backward()
    with FlopCounterMode(display=False) as encode, torch.no_grad():
        codes = made._codes(images)
    with FlopCounterMode(display=False) as decode, torch.no_grad():
        made._images(codes)
    counted = {"step": step, "encode": encode, "decode": decode}
    return {name: mode.get_total_flops() for name, mode in counted.items()}
