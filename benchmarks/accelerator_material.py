"""What both frameworks start from on an accelerator, and what they compute.

A process of its own makes it, on the processor:

    python -m benchmarks.accelerator_material REQUEST
"""

import json
import pathlib
import sys

import numpy as np

from benchmarks.training_step import NETWORKS

BATCHES = 4

_VQVAE = {
    **NETWORKS["128"]["config"],
    "residual_units": 64,
    "residual_blocks": 3,
}
_VQVAE2 = {
    "downsample_factors": (4, 2),
    "hidden_units": 128,
    "residual_units": 64,
    "residual_blocks": 2,
    "codebook_size": 512,
    "codebook_dim": 64,
    "channels": 3,
    "encoder_kernel_size": 3,
    "inplace_relu_residual": False,
}
_SMALL = {
    "hidden_units": 16,
    "residual_units": 8,
    "residual_blocks": 1,
    "codebook_size": 32,
    "codebook_dim": 8,
}

# The networks of the recipes `vqvae_cifar` and `vqvae2_imagenet`, and the
# default of `VQGAN`. A batch leaves a card of 80 GB room for both frameworks.
MODELS = {
    "vqvae_cifar": {"config": _VQVAE, "size": 32, "batch_size": 128},
    "vqvae2": {"config": _VQVAE2, "size": 256, "batch_size": 32},
    "vqgan_f16": {"config": {}, "size": 256, "batch_size": 8},
}
SMALL_MODELS = {
    "vqvae_cifar": {
        "config": {**_VQVAE, **_SMALL},
        "size": 32,
        "batch_size": 8,
    },
    "vqvae2": {"config": {**_VQVAE2, **_SMALL}, "size": 32, "batch_size": 4},
    "vqgan_f16": {
        "config": {
            "base_channels": 8,
            "channel_multipliers": (1, 2),
            "residual_blocks": 1,
            "attention_factors": (2,),
            "latent_channels": 8,
            "codebook_size": 16,
            "codebook_dim": 4,
            "groups": 4,
        },
        "size": 32,
        "batch_size": 2,
    },
}


def make_model(request: dict, dtype=None):
    """The model of keras_vq.

    Args:
        request: Dict of `model`, one of `MODELS`; `config`; and, for
            `vqgan_f16`, `lpips_files`.
        dtype: Dtype policy.
    """
    from keras_vq import models

    config = {**request["config"], "dtype": dtype}
    if request["model"] == "vqgan_f16":
        from benchmarks import vqgan_material

        return vqgan_material.make_model(config, request["lpips_files"])
    kind = models.VQVAE2 if request["model"] == "vqvae2" else models.VQVAE
    return kind(**config)


def make_torch(request: dict, running):
    """The peer, with the weights of the folder.

    Args:
        request: As `make_model` takes it, and `folder`.
        running: `benchmarks.torch_running.Running`.
    """
    import torch

    folder = pathlib.Path(request["folder"])
    if request["model"] == "vqgan_f16":
        from benchmarks.torch_vqgan import TrainingStep

        return TrainingStep(torch.load(folder / "torch.pt"), running)
    from benchmarks.torch_vqvae import TrainingStep, load

    network = torch_network(request)
    with np.load(folder / "torch.npz") as file:
        arrays = [file[name] for name in file.files]
    levels = len(request["config"].get("downsample_factors", [1]))
    load(network, arrays[levels:])
    return TrainingStep(network, arrays[:levels], running)


def torch_network(request: dict):
    """The networks of a model without a discriminator, in PyTorch."""
    if request["model"] == "vqvae2":
        from benchmarks.torch_vqvae2 import Hierarchy

        return Hierarchy(request["config"])
    from benchmarks.torch_vqvae import Autoencoder

    return Autoencoder(request["config"])


def make(request: dict):
    """Writes images, codes and weights into a folder, and `facts.json`.

    Args:
        request: Dict of `model`, `config`, `size`, `batch_size`, `folder`.
    """
    folder = pathlib.Path(request["folder"])
    if request["model"] == "vqgan_f16":
        from benchmarks import vqgan_material

        # It writes images, weights and facts.
        vqgan_material.make({**request, "data_dir": None})
        facts = json.loads((folder / "facts.json").read_text())
        model = make_model({**request, **facts})
    else:
        facts, model = _make(request, folder)
    shape = (request["batch_size"], request["size"], request["size"], 3)
    with np.load(folder / "images.npz") as file:
        assert file["images"].shape == (BATCHES, *shape)
    rng, codes = np.random.default_rng(1), []
    for level, factor in zip(
        model.quantizer.levels(), model.level_factors, strict=True
    ):
        side = request["size"] // factor
        shape = (request["batch_size"], side, side)
        codes.append(rng.integers(0, level.codebook_size, shape, "int32"))
    np.savez(folder / "codes.npz", *codes)
    facts["parameters"] = model.count_params()
    (folder / "facts.json").write_text(json.dumps(facts))


def _make(request, folder):
    import keras

    from benchmarks.torch_vqvae2 import keras_weights

    keras.utils.set_random_seed(0)
    shape = (BATCHES, request["batch_size"], *[request["size"]] * 2, 3)
    images = np.random.default_rng(0).uniform(-1, 1, shape).astype("float32")
    np.savez(folder / "images.npz", images=images)
    model = make_model(request)
    model.adapt(images[0][:32])
    np.savez(folder / "keras.npz", *model.get_weights())
    if request["model"] == "vqvae2":
        weights = keras_weights(model)
    else:
        weights = model.encoder.trainable_variables
        weights = [*weights, *model.decoder.trainable_variables]
    codebooks = [level.codebook for level in model.quantizer.levels()]
    arrays = [keras.ops.convert_to_numpy(v) for v in (*codebooks, *weights)]
    np.savez(folder / "torch.npz", *arrays)
    sizes = (request["size"], request["batch_size"])
    return {"flops": flops(request, *sizes)}, model


def flops(request: dict, size: int, batch_size: int) -> dict:
    """Operations of a step, an encode and a decode of a model.

    Args:
        request: Dict of `model`, not `vqgan_f16`, and `config`.
        size: Integer, side of an image.
        batch_size: Integer.
    """
    from benchmarks.torch_running import Running
    from benchmarks.torch_vqvae import TrainingStep, required_flops

    config = request["config"]
    levels = len(config.get("downsample_factors", [1]))
    shape = (config["codebook_size"], config["codebook_dim"])
    codebooks = [np.zeros(shape, "float32")] * levels
    made = TrainingStep(
        torch_network(request), codebooks, Running(device="meta")
    )
    return required_flops(made, size, batch_size)


if __name__ == "__main__":
    make(json.loads(sys.argv[1]))
