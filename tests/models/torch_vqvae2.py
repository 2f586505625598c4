"""VQ-VAE-2 in PyTorch, written from the paper and from what it left open.

Two levels are rosinality's network, whose layers stand in the published
weights; more follow the same rule.
"""

import numpy as np
import torch_networks as reference

torch = reference.torch
nn, functional = torch.nn, torch.nn.functional


def halving(inputs, units, kernel, factor):
    """Strided convolutions, then one that is not."""
    count = factor.bit_length() - 1
    stages = [units // 2] * max(count - 1, 1) + [units] * (count > 1)
    layers = []
    for stage in stages:
        layers += [nn.Conv2d(inputs, stage, kernel, 2, 1), nn.ReLU()]
        inputs = stage
    return [*layers, nn.Conv2d(inputs, units, 3, 1, 1)]


def doubling(units, outputs, factor):
    """The other way round, each after a ReLU."""
    count = factor.bit_length() - 1
    stages = [units // 2] * (count - 1) + [outputs]
    layers, inputs = [], units
    for stage in stages:
        layers += [nn.ReLU(), nn.ConvTranspose2d(inputs, stage, 4, 2, 1)]
        inputs = stage
    return layers


class Hierarchy(nn.Module):
    """The whole model; `factors` are the finest level's first."""

    def __init__(self, factors, units, inner, dim, size, kernel, inplace):
        super().__init__()
        self.factors = factors

        def residual():
            return [
                reference.Residual(units, inner, inplace=inplace)
                for _ in range(2)
            ]

        self.encoders = nn.ModuleList()
        self.decoders = nn.ModuleList()
        self.projections = nn.ModuleList()
        self.raising = nn.ModuleList()
        levels = len(factors)
        for i, factor in enumerate(factors):
            self.encoders.append(
                nn.Sequential(
                    *halving(3 if i == 0 else units, units, kernel, factor),
                    *residual(),
                    nn.ReLU(),
                )
            )
            coarsest = i == levels - 1
            self.projections.append(
                nn.Conv2d(units + (0 if coarsest else dim), dim, 1)
            )
            inputs = levels * dim if i == 0 else dim * (1 if coarsest else 2)
            self.decoders.append(
                nn.Sequential(
                    nn.Conv2d(inputs, units, 3, 1, 1),
                    *residual(),
                    *doubling(units, 3 if i == 0 else dim, factor),
                )
            )
            finer = np.prod(factors[1 : i + 1], dtype=int)
            count = int(finer).bit_length() - 1
            self.raising.append(
                nn.Sequential(
                    *(
                        nn.ConvTranspose2d(dim, dim, 4, 2, 1)
                        for _ in range(count)
                    ),
                )
            )
        self.codebooks = nn.ParameterList(
            [torch.zeros(size, dim).double() for _ in factors]
        )

    def forward(self, images):
        features, x = [], images
        for encoder in self.encoders:
            x = encoder(x)
            features.append(x)
        levels = len(self.factors)
        quantized, indices, flats = {}, {}, {}
        commitment = codebook_loss = 0.0
        context = None
        for i in reversed(range(levels)):
            x = features[i]
            if context is not None:
                x = torch.cat([context, x], 1)
            z = self.projections[i](x).permute(0, 2, 3, 1)
            flat = z.reshape(-1, z.shape[-1])
            codes = self.codebooks[i]
            nearest = torch.cdist(flat, codes).argmin(1)
            q = codes[nearest].reshape(z.shape)
            commitment = commitment + functional.mse_loss(z, q.detach())
            codebook_loss = codebook_loss + functional.mse_loss(q, z.detach())
            passed = (z + (q - z).detach()).permute(0, 3, 1, 2)
            quantized[i], flats[i] = passed, flat
            indices[i] = nearest.reshape(z.shape[:-1])
            if i:
                known = [passed] if context is None else [context, passed]
                context = self.decoders[i](torch.cat(known, 1))
        raised = [
            self.raising[i](quantized[i]) for i in reversed(range(levels))
        ]
        reconstruction = self.decoders[0](torch.cat(raised, 1))
        losses = {
            "commitment_loss": commitment,
            "codebook_loss": codebook_loss,
            "reconstruction_loss": functional.mse_loss(reconstruction, images),
        }
        order = list(reversed(range(levels)))
        return (
            reconstruction,
            [indices[i] for i in order],
            [flats[i] for i in order],
            losses,
        )


def paired_leaves(model, twin):
    """Layers with weights and their twins: (Keras layer, torch module)."""
    levels = len(twin.factors)
    pairs = []

    def add(layers, module):
        found = list(reference.torch_leaves(module))
        pairs.extend(zip(layers, found, strict=True))

    def parts(network, *names):
        for name in names:
            yield from reference.leaves(network.get_layer(name))

    for i in range(levels):
        names = (f"down_{i + 1}", f"features_{i + 1}")
        add(list(parts(model.encoder, *names)), twin.encoders[i])
    quantizer = model.quantizer
    for level, i in enumerate(reversed(range(levels))):
        add([quantizer.projections[level]], twin.projections[i])
        if i:
            names = (f"mixed_{i + 1}", f"up_{i + 1}")
            context = quantizer.contexts[level]
            add(list(parts(context, *names)), twin.decoders[i])
    add(list(parts(model.decoder, "mixed_1", "up_1")), twin.decoders[0])
    for i in range(1, levels):
        for k, module in enumerate(twin.raising[i]):
            layer = model.decoder.get_layer(f"raise_{i + 1}_{k + 1}")
            pairs.append((layer, module))
    return pairs


def copy_weights(model, twin):
    """Puts the weights of the model into its twin, in float64."""
    pairs = paired_leaves(model, twin)
    for layer, module in pairs:
        kernel = reference.to_torch(layer.kernel)
        assert module.weight.shape == kernel.shape
        module.weight.data = kernel.double()
        module.bias.data = torch.tensor(np.asarray(layer.bias)).double()
    assert len(pairs) == sum(1 for _ in reference.torch_leaves(twin))
    for level, quantizer in enumerate(reversed(model.quantizer.levels())):
        codes = torch.tensor(np.asarray(quantizer.codebook)).double()
        twin.codebooks[level].data = codes
    return twin.double()
