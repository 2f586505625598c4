"""Where and how PyTorch runs what is measured."""

import contextlib
import dataclasses

import torch


@dataclasses.dataclass(frozen=True)
class Running:
    """Device, numbers and compiler of a peer.

    Args:
        memory_format: Name of torch's format of images and kernels.
        compiled: Whether `torch.compile` takes the functions.
        device: torch's device; `"meta"` computes shapes only.
        bfloat16: Whether networks run in bfloat16 under `torch.autocast`.
        mode: `mode` of `torch.compile`; or `"aot_eager"`, its backend that
            follows the functions and generates no code.
    """

    memory_format: str = "contiguous_format"
    compiled: bool = False
    device: str = "cpu"
    bfloat16: bool = False
    mode: str = "default"

    def take(self, module):
        """The module, moved to where it runs, in training mode."""
        return module.to(device=self.device, memory_format=self.format).train()

    def batch(self, images):
        """NHWC array as images on the device."""
        images = torch.from_numpy(images).permute(0, 3, 1, 2).to(self.device)
        return images.contiguous(memory_format=self.format)

    @property
    def format(self):
        return getattr(torch, self.memory_format)

    def networks(self):
        """Context of the networks."""
        if not self.bfloat16:
            return contextlib.nullcontext()
        return torch.autocast(self.device, torch.bfloat16)

    def float32(self):
        """Context within that of the networks, of what stays in float32."""
        if not self.bfloat16:
            return contextlib.nullcontext()
        return torch.autocast(self.device, enabled=False)

    def compile(self, function):
        """The function, compiled where that is asked for."""
        if not self.compiled:
            return function
        if self.mode == "aot_eager":
            return torch.compile(function, backend=self.mode)
        return torch.compile(function, mode=self.mode)

    def begin(self):
        """Says that what the step before gave is no longer needed."""
        if self.compiled and self.device == "cuda":
            torch.compiler.cudagraph_mark_step_begin()

    def adam(self, parameters, **options):
        """Adam in one operation; None where there are only shapes."""
        if self.device == "meta":
            return None
        return torch.optim.Adam(parameters, eps=1e-7, fused=True, **options)


class Peer:
    """What all peers have in common.

    A peer has `running`, and the functions `codes` and `images`, which
    `running` has compiled.
    """

    def batch(self, images):
        """NHWC array as an input of the peer."""
        return self.running.batch(images)

    @torch.inference_mode()
    def encode(self, images):
        """Codes of images: a map, or a list with one for each level."""
        self.running.begin()
        return self.codes(images)

    @torch.inference_mode()
    def decode(self, codes):
        """Images of codes, as `encode` gives them."""
        self.running.begin()
        return self.images(codes)
