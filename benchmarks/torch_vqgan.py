"""A training step of VQGAN in PyTorch, with the `VQModel` of diffusers.

Written as one would write the original's step for speed: the discriminator
takes no gradients while the generator learns, the features of LPIPS none at
all, Adam is fused, gradients are given back as soon as they are used, and no
value is read during a step.
"""

import math

import diffusers
import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.torch_running import Peer, Running
from tests.losses.torch_lpips import LPIPS
from tests.models.torch_discriminator import patch_gan


class TrainingStep(Peer):
    """Autoencoder, discriminator, LPIPS and both optimizers.

    Args:
        material: Dict of `config`, arguments of `diffusers.VQModel`; of
            `discriminator`, arguments of `patch_gan`; of `states`, the state
            of each network; of `linear` and `scaling`, what LPIPS weights,
            and shifts and scales by; of `learning_rate`; and of
            `adversarial_weight`.
        running: `benchmarks.torch_running.Running`. LPIPS stays in float32,
            as that of keras_vq does.
    """

    def __init__(self, material, running):
        self.running = running
        self.material = material
        with torch.device(running.device):
            self.model = diffusers.VQModel(**material["config"])
            self.discriminator = patch_gan(*material["discriminator"]).main
            self.perceptual = LPIPS("squeeze")
        self.discriminator.float()
        self.perceptual.requires_grad_(False)
        for part in (self.discriminator, self.perceptual):
            for module in part.modules():
                if isinstance(module, nn.ReLU | nn.LeakyReLU):
                    module.inplace = True
        self._load(running.device)
        # Apart from the rest, so that its gradients can be had alone.
        self.last_layer = self.model.decoder.conv_out
        self.model.decoder.conv_out = nn.Identity()
        parts = [self.model, self.last_layer, self.discriminator]
        for part in (*parts, self.perceptual):
            running.take(part)
        self.optimizers = []
        if running.device != "meta":
            self.optimizers = [
                _adam(running, material, *parts[:2]),
                _adam(running, material, parts[2]),
            ]
        self.features = running.compile(self._features)
        self.judge = running.compile(self._judge)
        self.errors = running.compile(self._errors)
        self.codes = running.compile(self._codes)
        self.images = running.compile(self._images)

    def _load(self, device):
        shape = (1, -1, 1, 1)
        self.perceptual.lins = [
            weight.reshape(shape).to(device)
            for weight in self.material["linear"]
        ]
        self.perceptual.scaling = [
            values.reshape(shape).to(device)
            for values in self.material["scaling"]
        ]
        if device == "meta":
            return
        states = self.material["states"]
        self.model.load_state_dict(states["model"])
        self.discriminator.load_state_dict(states["discriminator"])
        self.perceptual.features.load_state_dict(states["perceptual"])

    def __call__(self, images):
        """Takes a step; returns tensors by the names of keras_vq's logs."""
        self.running.begin()
        features, quantization = self.features(images)
        output = self._output(features)
        errors = self.errors(images, output)
        self.discriminator.requires_grad_(False)
        opinion = -self.judge(output).mean()
        weight = self._adaptive_weight(errors, opinion)
        factor = self.material["adversarial_weight"] * weight
        loss = errors + quantization
        (loss + factor * opinion).backward()
        self._descend(self.optimizers[0])

        self.discriminator.requires_grad_(True)
        real, fake = self.judge(images), self.judge(output.detach())
        hinges = (1 - real).relu().mean() + (1 + fake).relu().mean()
        opposed = 0.5 * hinges
        opposed.backward()
        self._descend(self.optimizers[1])
        return {
            "loss": loss.detach(),
            "generator_loss": opinion.detach(),
            "discriminator_loss": opposed.detach(),
            "adaptive_weight": weight,
        }

    def _codes(self, images):
        with self.running.networks():
            latents = self.model.encode(images).latents
        *_, found = self.model.quantize(latents.float())
        return found[-1].reshape(len(images), -1)

    def _images(self, codes):
        vectors = F.embedding(codes, self.model.quantize.embedding.weight)
        with self.running.networks():
            features = self.model.decode(
                vectors.permute(0, 3, 1, 2), force_not_quantize=True
            )
        return self._output(features.sample)

    def _features(self, images):
        """What the last layer sees, and the quantizer's loss."""
        with self.running.networks():
            return self.model(images, return_dict=False)

    def _output(self, features):
        with self.running.networks():
            return self.last_layer(features)

    def _judge(self, images):
        with self.running.networks():
            return self.discriminator(images).float()

    def _errors(self, images, output):
        output = output.float()
        distance = self.perceptual(images, output).mean()
        return (images - output).abs().mean() + distance

    def _adaptive_weight(self, errors, opinion):
        kernel = self.last_layer.weight
        ours, theirs = (
            torch.autograd.grad(value, kernel, retain_graph=True)[0].norm()
            for value in (errors, opinion)
        )
        return (ours / (theirs + 1e-4)).clamp(0, 1e4).detach()

    def _descend(self, optimizer):
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


def _adam(running, material, *parts):
    return running.adam(
        [p for part in parts for p in part.parameters()],
        lr=material["learning_rate"],
        betas=(0.5, 0.9),
    )


def required_flops(material, size, batch_size) -> dict:
    """Multiplications and additions of a step, an encode and a decode.

    Those of convolutions and matrix products, as torch counts them, of every
    network once: forward and backward of the autoencoder; LPIPS of images and
    reconstruction, backward to the latter; the discriminator of both, backward
    to its weights, and to the reconstruction.
    """
    from torch.utils.flop_counter import FlopCounterMode

    made = TrainingStep(material, Running(device="meta"))
    shape = (batch_size, 3, size, size)
    images = torch.empty(shape, device="meta")
    with FlopCounterMode(display=False) as step:
        made.discriminator.requires_grad_(False)
        features, quantization = made.features(images)
        output = made.last_layer(features)
        opinion = made.judge(output).mean()
        (made.errors(images, output) + quantization + opinion).backward()
        made.discriminator.requires_grad_(True)
        made.judge(images).mean().backward()
    with FlopCounterMode(display=False) as forward:
        made.judge(output.detach())
    with FlopCounterMode(display=False) as both:
        made.judge(output.detach()).mean().backward()
    with FlopCounterMode(display=False) as encode, torch.no_grad():
        codes = made.codes(images)
        # A map for each image: as many positions of each side.
        side = math.isqrt(codes.shape[1])
    with FlopCounterMode(display=False) as decode, torch.no_grad():
        made.images(codes.view(batch_size, side, side))
    # The judgement of the reconstruction serves both networks.
    total = step.get_total_flops() + both.get_total_flops()
    total -= forward.get_total_flops()
    return {
        "step": total,
        "encode": encode.get_total_flops(),
        "decode": decode.get_total_flops(),
    }
