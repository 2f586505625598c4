"""One training step of a VQGAN in PyTorch, written from its description.

Everything is float64, so that what differs is the rounding of the other side.
The networks are those of `torch_vqgan`, the discriminator is a torch module
that is called as in training, and LPIPS is any function of two batches that
gives one value per image. Images are NCHW.
"""

import copy
import dataclasses
from collections.abc import Callable

import numpy as np

from tests import torch_vqgan
from tests.models import torch_discriminator
from tests.torch_vqgan import functional, torch

CODEBOOK = "quantize.embedding.weight"
LAST_KERNEL = "decoder.conv_out.weight"


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Sizes of the networks, weights of the losses, the two optimizers."""

    levels: int
    blocks: int
    groups: int
    adversarial: str = "hinge"
    weight: float = 0.8
    adaptive_weight: bool = True
    max_adaptive_weight: float = 1e4
    perceptual: Callable | None = None
    perceptual_weight: float = 1.0
    commitment_weight: float = 0.25
    codebook_weight: float = 1.0
    r1_weight: float = 0.0
    lecam_weight: float = 0.0
    learning_rates: tuple = (0.1, 0.1)
    clipnorm: float | None = None
    micro_batches: int = 1
    # Of the codebook of moving averages; None: it learns by gradient.
    decay: float | None = None


class Training:
    """Weights of both networks, and steps that change them.

    Args:
        recipe: A `Recipe`.
        weights: Tensors of the autoencoder by the original's names, the
            codebook's among them.
        discriminator: A module whose `main` gives logits of images.
    """

    def __init__(self, recipe, weights, discriminator):
        self.recipe = recipe
        self.weights = {
            name: weight.detach().requires_grad_(True)
            for name, weight in weights.items()
        }
        self.discriminator = discriminator
        self.anchors = torch.zeros(3).double()
        codebook = self.weights[CODEBOOK]
        self.counts = torch.ones(len(codebook)).double()
        self.sums = codebook.detach().clone()

    @property
    def trained(self):
        """What the generator's optimizer moves."""
        names = list(self.weights)
        if self.recipe.decay is not None:
            names.remove(CODEBOOK)
        return {name: self.weights[name] for name in names}

    def step(self, images, ramp=1.0):
        """Takes one step; returns the terms of the loss by their names.

        Afterwards `gradients` and `discriminator_gradients` hold, by name,
        what the optimizers were given, and `margin` how
        far the nearest kink of the loss was: where a code is as near as
        another, or a pixel is exactly right, the gradient jumps.
        """
        parts = images.chunk(self.recipe.micro_batches)
        found = [self._part(part, ramp) for part in parts]
        self.indices = torch.cat([part["indices"] for part in found])
        self.margin = min(part["margin"] for part in found)
        self.gradients = _mean([part["gradients"] for part in found])
        self.discriminator_gradients = _mean(
            [part["discriminator_gradients"] for part in found]
        )
        terms = _mean([part["terms"] for part in found])
        self._descend()
        if self.recipe.decay is not None:
            self._move_codebook(torch.cat([part["latents"] for part in found]))
        new = torch.stack([terms["real_logits"], terms["fake_logits"]])
        new = torch.cat([new, torch.ones(1)])
        self.anchors = 0.99 * self.anchors + 0.01 * new.detach()
        return {name: term.item() for name, term in terms.items()}

    def _part(self, images, ramp):
        """Terms and gradients of one micro-batch."""
        reconstruction, losses, found = self._autoencoder(images)
        terms, gradients = self._generator(reconstruction, losses, ramp)
        critic_terms, critic_gradients = self._discriminator(
            images, reconstruction.detach()
        )
        return {
            **found,
            "terms": {**losses, **terms, **critic_terms},
            "gradients": gradients,
            "discriminator_gradients": critic_gradients,
        }

    # The generator

    def _autoencoder(self, images):
        recipe = self.recipe
        sizes = recipe.levels, recipe.blocks, recipe.groups
        latents = torch_vqgan.encode(self.weights, images, *sizes)
        rows = latents.permute(0, 2, 3, 1)
        codebook = self.weights[CODEBOOK]
        distances = torch.cdist(
            rows.detach().reshape(-1, rows.shape[-1]), codebook.detach()
        )
        indices = distances.argmin(1).reshape(rows.shape[:-1])
        codes = functional.embedding(indices, codebook)
        quantized = rows + (codes - rows).detach()
        reconstruction = torch_vqgan.decode(
            self.weights, quantized.permute(0, 3, 1, 2), *sizes
        )
        errors = (images - reconstruction).abs()
        losses = {
            "reconstruction_loss": errors.mean(),
            "commitment_loss": (rows - codes.detach()).square().mean(),
            "loss": errors.mean(),
        }
        weight = recipe.commitment_weight
        losses["loss"] = losses["loss"] + weight * losses["commitment_loss"]
        if recipe.decay is None:
            loss = (rows.detach() - codes).square().mean()
            losses["codebook_loss"] = loss
            losses["loss"] = losses["loss"] + recipe.codebook_weight * loss
        if recipe.perceptual is not None:
            loss = recipe.perceptual(images, reconstruction).mean()
            losses["perceptual_loss"] = loss
            losses["loss"] = losses["loss"] + recipe.perceptual_weight * loss
        nearest = distances.topk(2, largest=False).values
        gap = (nearest[:, 1] - nearest[:, 0]).min()
        found = {
            "indices": indices,
            "latents": rows.detach(),
            "margin": min(gap.item(), errors.min().item()),
        }
        return reconstruction, losses, found

    def _generator(self, reconstruction, losses, ramp):
        recipe = self.recipe
        # A copy: looking at the discriminator leaves no trace in it.
        critic = copy.deepcopy(self.discriminator)
        logits = critic.main(reconstruction)
        if recipe.adversarial == "non_saturating":
            adversarial = functional.softplus(-logits).mean()
        else:
            adversarial = -logits.mean()
        terms = {"generator_loss": adversarial}
        factor = recipe.weight * ramp
        if recipe.adaptive_weight:
            terms["adaptive_weight"] = self._adaptive(losses, adversarial)
            factor = factor * terms["adaptive_weight"]
        trained = self.trained
        gradients = torch.autograd.grad(
            losses["loss"] + factor * adversarial, list(trained.values())
        )
        return terms, dict(zip(trained, gradients, strict=True))

    def _adaptive(self, losses, adversarial):
        loss = losses["reconstruction_loss"]
        if "perceptual_loss" in losses:
            weight = self.recipe.perceptual_weight
            loss = loss + weight * losses["perceptual_loss"]
        kernel = self.weights[LAST_KERNEL]
        ours, theirs = (
            torch.autograd.grad(value, kernel, retain_graph=True)[0].norm()
            for value in (loss, adversarial)
        )
        limit = self.recipe.max_adaptive_weight
        return (ours / (theirs + 1e-4)).clamp(0, limit).detach()

    # The discriminator

    def _discriminator(self, images, reconstruction):
        recipe = self.recipe
        images = images.detach().requires_grad_(recipe.r1_weight > 0)
        fake = self.discriminator.main(reconstruction)
        real = self.discriminator.main(images)
        if recipe.adversarial == "hinge":
            loss = 0.5 * ((1 - real).relu().mean() + (1 + fake).relu().mean())
        else:
            loss = 0.5 * (
                functional.softplus(-real).mean()
                + functional.softplus(fake).mean()
            )
        terms = {
            "real_logits": real.mean(),
            "fake_logits": fake.mean(),
            "discriminator_accuracy": 0.5
            * ((real > 0).double().mean() + (fake <= 0).double().mean()),
        }
        if recipe.r1_weight:
            terms["r1_penalty"] = _r1(images, real)
            loss = loss + recipe.r1_weight * terms["r1_penalty"]
        if recipe.lecam_weight:
            terms["lecam_penalty"] = self._lecam(real, fake)
            loss = loss + recipe.lecam_weight * terms["lecam_penalty"]
        terms["discriminator_loss"] = loss
        trained = dict(self.discriminator.named_parameters())
        gradients = torch.autograd.grad(loss, list(trained.values()))
        return terms, dict(zip(trained, gradients, strict=True))

    def _lecam(self, real, fake):
        """With the averages of before this step, which are 0 at the start."""
        real_sum, fake_sum, weight = self.anchors
        real_average = real_sum / weight if weight else 0.0
        fake_average = fake_sum / weight if weight else 0.0
        return (real - fake_average).relu().square().mean() + (
            real_average - fake
        ).relu().square().mean()

    # The update

    def _descend(self):
        pairs = (
            (self.trained, self.gradients),
            (
                dict(self.discriminator.named_parameters()),
                self.discriminator_gradients,
            ),
        )
        rates, limit = self.recipe.learning_rates, self.recipe.clipnorm
        for (weights, gradients), rate in zip(pairs, rates, strict=True):
            if limit is not None:
                flat = [gradient.flatten() for gradient in gradients.values()]
                factor = min(1.0, limit / torch.cat(flat).norm().item())
                for name in gradients:
                    gradients[name] = factor * gradients[name]
            for name, weight in weights.items():
                weight.data = weight.data - rate * gradients[name]

    def _move_codebook(self, latents):
        """The codes as moving averages of their latents."""
        decay, count = self.recipe.decay, len(self.counts)
        hits = functional.one_hot(self.indices.flatten(), count).double()
        sums = hits.T @ latents.reshape(-1, latents.shape[-1])
        self.counts = decay * self.counts + (1 - decay) * hits.sum(0)
        self.sums = decay * self.sums + (1 - decay) * sums
        total = self.counts.sum()
        smooth = (self.counts + 1e-5) * total / (total + count * 1e-5)
        self.weights[CODEBOOK].data = self.sums / smooth[:, None]


def _r1(images, logits):
    """Half the squared slope of each image's mean logit."""
    (slopes,) = torch.autograd.grad(
        logits.mean((1, 2, 3)).sum(), images, create_graph=True
    )
    return 0.5 * slopes.square().sum((1, 2, 3)).mean()


def _mean(found):
    """Means of dictionaries with the same names."""
    return {
        name: sum(one[name].detach() for one in found) / len(found)
        for name in found[0]
    }


# The twin of a Keras model

_NAMES = {"kernel": "weight", "gamma": "weight", "beta": "bias"}


def named_variables(model):
    """Trained variables of generator and discriminator, by torch's names."""
    generator = {
        **torch_vqgan.named_variables(model.encoder),
        **torch_vqgan.named_variables(model.decoder),
        CODEBOOK: model.quantizer.codebook,
    }
    discriminator = {}
    for i, layer in enumerate(model.discriminator.main):
        for variable in layer.trainable_weights:
            name = _NAMES.get(variable.name, variable.name)
            if name == "weight" and hasattr(layer, "u"):
                name = "parametrizations.weight.original"
            discriminator[f"main.{i}.{name}"] = variable
    return generator, discriminator


def as_keras(tensor):
    """As Keras keeps it: kernels as (height, width, in, out)."""
    array = tensor.detach().numpy()
    if array.ndim == 4 and array.shape[0] == array.shape[2] == 1:
        return array.reshape(-1)  # What ActNorm has for each channel.
    return array.transpose(2, 3, 1, 0) if array.ndim == 4 else array


def twin(model, recipe):
    """A `Training` that starts from the weights of a Keras model."""
    generator, _ = named_variables(model)
    weights = {
        name: torch_vqgan.to_torch(np.asarray(variable))
        for name, variable in generator.items()
    }
    critic = model.discriminator
    spectral = critic.use_spectral_normalization
    network = torch_discriminator.patch_gan(
        critic.filters,
        critic.num_layers,
        critic.channels,
        critic.normalization,
        spectral,
    )
    torch_discriminator.copy_to_torch(critic, network)
    # In training torch's spectral norm iterates before it divides; ours does
    # so after the step.
    network.train(not spectral)
    for module in network.main:
        if isinstance(module, torch.nn.BatchNorm2d):
            module.register_forward_hook(_keep_biased_variance)
    return Training(recipe, weights, network)


def _keep_biased_variance(module, inputs, _):
    """Torch's moving variance is of unbiased ones, Keras' of biased ones."""
    x = inputs[0].detach()
    excess = x.var((0, 2, 3)) - x.var((0, 2, 3), correction=0)
    # Not in place: the backward pass still knows the old one.
    module.running_var = module.running_var - module.momentum * excess
