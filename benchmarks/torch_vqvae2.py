"""The networks of `keras_vq.models.VQVAE2` in PyTorch.

`benchmarks.torch_vqvae.TrainingStep` trains them. Levels are those of the
Keras model's `downsample_factors`, the finest first.
"""

import torch
from torch import nn

from benchmarks.torch_vqvae import ResidualBlock


class Hierarchy(nn.Module):
    """Encoders, what stands between the quantizers, and the decoder.

    The parts are made in the order of `keras_weights`.

    Args:
        config: Dict of the arguments of `keras_vq.models.VQVAE2`.
    """

    def __init__(self, config: dict):
        super().__init__()
        self.config = config
        factors, dim = config["downsample_factors"], config["codebook_dim"]
        units, channels = config["hidden_units"], config["channels"]
        levels = len(factors)
        self.encoders = nn.ModuleList(
            self._encoder(units if i else channels, factor)
            for i, factor in enumerate(factors)
        )
        # From here on the coarsest comes first.
        self.projections, self.contexts = nn.ModuleList(), nn.ModuleList()
        self.raising = nn.ModuleList()
        for i in reversed(range(levels)):
            coarsest = i == levels - 1
            inputs = units if coarsest else units + dim
            self.projections.append(nn.Conv2d(inputs, dim, 1))
        for i in reversed(range(1, levels)):
            inputs = dim if i == levels - 1 else 2 * dim
            self.contexts.append(self._decoder(inputs, dim, factors[i]))
        for i in reversed(range(1, levels)):
            count = sum(f.bit_length() - 1 for f in factors[1 : i + 1])
            self.raising.append(
                nn.Sequential(*[_doubling(dim, dim) for _ in range(count)])
            )
        self.decoder = self._decoder(levels * dim, channels, factors[0])

    def encode(self, images, quantize) -> list:
        """Quantized latents of each level, the coarsest first."""
        features, x = [], images
        for encoder in self.encoders:
            x = encoder(x)
            features.append(x)
        quantized, context = [], None
        for level, x in enumerate(reversed(features)):
            latents = self.projections[level](_joined(context, x))
            quantized.append(quantize(latents))
            if level < len(self.contexts):
                known = _joined(context, quantized[-1])
                context = self.contexts[level](known)
        return quantized

    def decode(self, quantized):
        """Images of the quantized latents of all levels."""
        *coarse, finest = quantized
        raised = [
            raise_(x) for raise_, x in zip(self.raising, coarse, strict=True)
        ]
        return self.decoder(torch.cat([*raised, finest], 1))

    def _encoder(self, inputs, factor):
        units, kernel = (
            self.config[n] for n in ("hidden_units", "encoder_kernel_size")
        )
        layers = []
        for outputs in _stages(units, factor):
            pad = (kernel - 1) // 2
            layers += [nn.Conv2d(inputs, outputs, kernel, 2, pad), nn.ReLU()]
            inputs = outputs
        layers += [nn.Conv2d(inputs, units, 3, padding=1), *self._residual()]
        return nn.Sequential(*layers, nn.ReLU())

    def _decoder(self, inputs, outputs, factor):
        units = self.config["hidden_units"]
        layers = [nn.Conv2d(inputs, units, 3, padding=1), *self._residual()]
        for stage in [*_stages(units, factor)[-2::-1], outputs]:
            layers += [nn.ReLU(), _doubling(units, stage)]
            units = stage
        return nn.Sequential(*layers)

    def _residual(self):
        names = ("hidden_units", "residual_units")
        units, inner = (self.config[name] for name in names)
        inplace = self.config["inplace_relu_residual"]
        return [
            ResidualBlock(units, inner, False, inplace)
            for _ in range(self.config["residual_blocks"])
        ]


def _stages(units, factor) -> list:
    """Channels after each halving."""
    count = factor.bit_length() - 1
    return [units // 2] * max(count - 1, 1) + [units] * (count > 1)


def _doubling(inputs, outputs):
    return nn.ConvTranspose2d(inputs, outputs, 4, 2, 1)


def _joined(context, x):
    return x if context is None else torch.cat([context, x], 1)


def keras_weights(model) -> list:
    """Trained variables of a `keras_vq.models.VQVAE2` in the order of these.

    Args:
        model: Model whose codebooks are moving averages.
    """
    levels = len(model.quantizer.levels())
    encoder, decoder = model.encoder, model.decoder
    parts = [
        encoder.get_layer(f"{name}_{i + 1}")
        for i in range(levels)
        for name in ("down", "features")
    ]
    parts += [*model.quantizer.projections, *model.quantizer.contexts]
    names = [layer.name for layer in decoder.layers]
    for level in range(levels, 1, -1):
        raising = [n for n in names if n.startswith(f"raise_{level}_")]
        parts += [decoder.get_layer(name) for name in sorted(raising)]
    parts += [decoder.get_layer("mixed_1"), decoder.get_layer("up_1")]
    return [v for part in parts for v in part.trainable_variables]
