"""Small files of every layout, and what PyTorch makes of them.

`python -m tests.convert.golden_weights` writes the values anew. The weights
are random numbers, which NumPy alone makes again from a seed and the shapes
that the originals have.
"""

import json
import math
import pathlib

import numpy as np

PATH = pathlib.Path(__file__).with_name("golden_weights.json")
COMMAND = "python -m tests.convert.golden_weights"
# Of a VQGAN with two levels.
SIZES = {
    "base_channels": 32,
    "channel_multipliers": (1, 2),
    "residual_blocks": 1,
    "attention_factors": (2,),
    "latent_channels": 8,
    "codebook_dim": 4,
}
_DIGITS = 6


def images():
    """Noise on a gradient, in [-1, 1]."""
    rng = np.random.RandomState(7)
    ramp = np.linspace(-1, 1, 16)[:, None, None]
    noise = rng.uniform(-1, 1, (1, 16, 16, 3))
    return (0.5 * ramp + 0.5 * noise).astype("float32")


def weights_of(shapes: dict, seed: int) -> dict:
    """float32 arrays by name, always the same."""
    rng = np.random.RandomState(seed)
    arrays = {}
    for name, shape in shapes.items():
        values = rng.normal(size=shape)
        if len(shape) == 4:
            values *= math.sqrt(2 / math.prod(shape[1:]))
        elif name.endswith(("running_var", "cluster_size")):
            values = np.exp(0.2 * values)
        elif len(shape) == 1:
            values = 0.2 * values + name.endswith("weight")
        # What is listed again is the same.
        first = name.replace("_layers.1.", "_layers.0.")
        arrays[name] = arrays.get(first, values.astype("float32"))
    return arrays


def read() -> dict:
    """The values by layout."""
    return json.loads(PATH.read_text(encoding="utf-8"))


def _twins():
    """For each layout the shapes, and a function of arrays and images."""
    from tests.convert import published

    for name, twin in {
        "swasun": published.Swasun(),
        "kumar": published.Kumar(),
        "rosinality": published.Rosinality(inplace=True),
    }.items():
        shapes = {
            key: tuple(value.shape)
            for key, value in twin.state_dict().items()
            if value.ndim
        }
        yield name, shapes, lambda arrays, x, twin=twin: _run(twin, arrays, x)
    for name, unit_length in (("taming", False), ("llamagen", True)):
        yield (
            name,
            _vqgan_shapes(),
            lambda arrays, x, unit=unit_length: _run_vqgan(arrays, x, unit),
        )


def _run(twin, arrays, x):
    from tests.convert import published

    state = {k: published.torch.tensor(v) for k, v in arrays.items()}
    twin.load_state_dict(state, strict=False)
    with published.torch.no_grad():
        codes, outputs = twin.double().eval()(published.swap(x).double())
    codes = codes if isinstance(codes, list) else [codes]
    return [level.numpy() for level in codes], published.back(outputs)


def _vqgan_shapes() -> dict:
    from keras_vq.models.vqgan_networks import VQGANNetworks
    from tests import torch_vqgan

    networks = VQGANNetworks(**SIZES)
    variables = {
        **torch_vqgan.named_variables(networks.encoder()),
        **torch_vqgan.named_variables(networks.decoder()),
    }
    shapes = {}
    for name, variable in variables.items():
        *sides, last = variable.shape
        is_kernel = len(sides) == 3
        shapes[name] = (last, sides[2], *sides[:2]) if is_kernel else (last,)
    return {**shapes, "quantize.embedding.weight": (24, 4)}


def _run_vqgan(arrays, x, unit_length):
    from tests import torch_vqgan
    from tests.convert import published

    torch = published.torch
    weights = {k: torch.tensor(v).double() for k, v in arrays.items()}
    latents = torch_vqgan.encode(weights, published.swap(x).double(), 2, 1, 32)
    codes = weights["quantize.embedding.weight"]
    if unit_length:
        latents = published.functional.normalize(latents, dim=1)
        codes = published.functional.normalize(codes, dim=-1)
    indices, quantized = published.nearest(latents, codes)
    outputs = torch_vqgan.decode(weights, quantized, 2, 1, 32)
    return [indices.numpy()], published.back(outputs)


def write():
    """Writes what PyTorch gives."""
    values = {}
    for name, shapes, run in _twins():
        # The first seed with which many codes are used, none of them by a
        # hair's breadth.
        for seed in range(200):
            arrays = weights_of(shapes, seed)
            codes, outputs = run(arrays, images())
            shifted, _ = run(arrays, images() + 1e-4)
            # The coarser level of two has four positions.
            used = [len(np.unique(level)) for level in codes]
            same = all(map(np.array_equal, codes, shifted))
            if (
                max(used) > 4
                and min(used) > 2
                and same
                and np.abs(outputs).max() < 50
            ):
                break
        else:
            raise AssertionError(f"{name}: no seed will do")
        values[name] = {
            "seed": seed,
            "shapes": shapes,
            "codes": [level.tolist() for level in codes],
            "images": np.round(outputs, _DIGITS).tolist(),
        }
        print(name, "seed", seed, "codes used", used)
    PATH.write_text(json.dumps(values) + "\n", encoding="utf-8")


if __name__ == "__main__":
    write()
