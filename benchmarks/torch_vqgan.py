"""A training step of VQGAN in PyTorch, with the `VQModel` of diffusers.

Written as one would write the original's step for speed: the discriminator
takes no gradients while the generator learns, the features of LPIPS none at
all, Adam is fused, gradients are given back as soon as they are used, and no
value is read during a step.
"""

import diffusers
import torch
from torch import nn

from tests.losses.torch_lpips import LPIPS
from tests.models.torch_discriminator import patch_gan


class TrainingStep:
    """Autoencoder, discriminator, LPIPS and both optimizers.

    Args:
        material: Dict of `config`, arguments of `diffusers.VQModel`; of
            `discriminator`, arguments of `patch_gan`; of `states`, the state
            of each network; of `linear` and `scaling`, what LPIPS weights,
            and shifts and scales by; of `learning_rate`; and of
            `adversarial_weight`.
        memory_format: torch's format of images and kernels.
        compiled: Whether `torch.compile` takes the networks.
        device: torch's device; `"meta"` computes shapes only.
    """

    def __init__(self, material, memory_format, compiled=False, device="cpu"):
        self.memory_format = memory_format
        self.material = material
        with torch.device(device):
            self.model = diffusers.VQModel(**material["config"])
            self.discriminator = patch_gan(*material["discriminator"]).main
            self.perceptual = LPIPS("squeeze")
        self.discriminator.float()
        self.perceptual.requires_grad_(False)
        for part in (self.discriminator, self.perceptual):
            for module in part.modules():
                if isinstance(module, nn.ReLU | nn.LeakyReLU):
                    module.inplace = True
        self._load(device)
        # Apart from the rest, so that its gradients can be had alone.
        self.last_layer = self.model.decoder.conv_out
        self.model.decoder.conv_out = nn.Identity()
        parts = [self.model, self.last_layer, self.discriminator]
        for part in (*parts, self.perceptual):
            part.to(memory_format=memory_format).train()
        self.optimizers = []
        if device != "meta":
            self.optimizers = [
                _adam(material, *parts[:2]),
                _adam(material, parts[2]),
            ]
        self.features, self.judge = self._features, self.discriminator
        self.errors, self.codes = self._errors, self._codes
        if compiled:
            self.features = torch.compile(self._features)
            self.judge = torch.compile(self.discriminator)
            self.errors = torch.compile(self._errors)
            self.codes = torch.compile(self._codes)

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

    def batch(self, images):
        """NHWC array as an input of this step."""
        images = torch.from_numpy(images).permute(0, 3, 1, 2)
        return images.contiguous(memory_format=self.memory_format)

    def __call__(self, images):
        """Takes a step; returns tensors by the names of keras_vq's logs."""
        features, quantization = self.features(images)
        output = self.last_layer(features)
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

    @torch.inference_mode()
    def encode(self, images):
        """Codes of images."""
        return self.codes(images)

    def _codes(self, images):
        *_, found = self.model.quantize(self.model.encode(images).latents)
        return found[-1].reshape(len(images), -1)

    def _features(self, images):
        """What the last layer sees, and the quantizer's loss."""
        return self.model(images, return_dict=False)

    def _errors(self, images, output):
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


def _adam(material, *parts):
    return torch.optim.Adam(
        [p for part in parts for p in part.parameters()],
        lr=material["learning_rate"],
        betas=(0.5, 0.9),
        eps=1e-7,
        fused=True,
    )


def required_flops(material, size, batch_size) -> dict:
    """Multiplications and additions that a step and an encode need.

    Those of convolutions and matrix products, as torch counts them, of every
    network once: forward and backward of the autoencoder; LPIPS of images and
    reconstruction, backward to the latter; the discriminator of both, backward
    to its weights, and to the reconstruction.
    """
    from torch.utils.flop_counter import FlopCounterMode

    made = TrainingStep(material, torch.contiguous_format, device="meta")
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
        made.codes(images)
    # The judgement of the reconstruction serves both networks.
    total = step.get_total_flops() + both.get_total_flops()
    total -= forward.get_total_flops()
    return {"step": total, "encode": encode.get_total_flops()}
