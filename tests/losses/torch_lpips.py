"""LPIPS in PyTorch: the trunks of torchvision, the arithmetic of PyPI lpips."""

import pytest

torch = pytest.importorskip("torch", reason="compares with PyTorch")
nn = torch.nn


class Fire(nn.Module):
    def __init__(self, channels, squeezed, half):
        super().__init__()
        self.squeeze = nn.Conv2d(channels, squeezed, 1)
        self.expand1x1 = nn.Conv2d(squeezed, half, 1)
        self.expand3x3 = nn.Conv2d(squeezed, half, 3, padding=1)

    def forward(self, x):
        x = torch.relu(self.squeeze(x))
        halves = self.expand1x1(x), self.expand3x3(x)
        return torch.cat([torch.relu(half) for half in halves], 1)


def vgg16():
    layers, channels = [], 3
    for width in [64, 64, 0, 128, 128, 0, 256, 256, 256, 0] + [
        *(512, 512, 512, 0),
        *(512, 512, 512, 0),
    ]:
        if width:
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
            channels = width
        else:
            layers.append(nn.MaxPool2d(2, 2))
    return nn.Sequential(*layers)


def squeezenet():
    def pool():
        return nn.MaxPool2d(3, 2, ceil_mode=True)

    return nn.Sequential(
        nn.Conv2d(3, 64, 3, stride=2),
        nn.ReLU(),
        pool(),
        Fire(64, 16, 64),
        Fire(128, 16, 64),
        pool(),
        Fire(128, 32, 128),
        Fire(256, 32, 128),
        pool(),
        Fire(256, 48, 192),
        Fire(384, 48, 192),
        Fire(384, 64, 256),
        Fire(512, 64, 256),
    )


# The network, the layers whose outputs are compared, and their channels.
TRUNKS = {
    "vgg": (vgg16, (3, 8, 15, 22, 29), (64, 128, 256, 512, 512)),
    "squeeze": (
        squeezenet,
        (1, 4, 7, 9, 10, 11, 12),
        (64, 128, 256, 384, 384, 512, 512),
    ),
}
SHIFT = torch.tensor([-0.030, -0.088, -0.188])[None, :, None, None]
SCALE = torch.tensor([0.458, 0.448, 0.450])[None, :, None, None]


class LPIPS(nn.Module):
    """`features` with random weights, `lins` with random positive ones."""

    def __init__(self, trunk, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        make, self.taps, widths = TRUNKS[trunk]
        self.features = make()
        for module in self.features.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                nn.init.normal_(module.bias, std=0.1)
        self.lins = [torch.rand(1, width, 1, 1) for width in widths]
        self.scaling = SHIFT, SCALE

    def linear_state(self):
        return {
            f"lin{i}.model.1.weight": weight
            for i, weight in enumerate(self.lins)
        }

    def activations(self, images):
        shift, scale = self.scaling
        x = (images - shift) / scale
        found = []
        # A pool behind the last of them would refuse small images.
        for index, layer in enumerate(self.features[: self.taps[-1] + 1]):
            x = layer(x)
            if index in self.taps:
                found.append(x)
        return found

    def forward(self, first, second):
        total = 0
        pairs = zip(
            self.activations(first), self.activations(second), strict=True
        )
        for weight, (a, b) in zip(self.lins, pairs, strict=True):
            a, b = (
                x / (torch.sqrt((x**2).sum(1, keepdim=True)) + 1e-10)
                for x in (a, b)
            )
            layer = ((a - b) ** 2 * weight).sum(1, keepdim=True)
            total = total + layer.mean((2, 3))[:, 0]
        return total

    def gradient(self, first, second):
        """Values and the gradient of their sum, for NHWC arrays."""
        first, second = (
            torch.tensor(x).permute(0, 3, 1, 2) for x in (first, second)
        )
        second.requires_grad_()
        values = self(first, second)
        (gradient,) = torch.autograd.grad(values.sum(), second)
        return values.detach().numpy(), gradient.permute(0, 2, 3, 1).numpy()
