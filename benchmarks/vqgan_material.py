"""What both frameworks start from: images, weights, sizes.

A process of its own makes them, so that neither framework is in the memory of
the other's process.

    python -m benchmarks.vqgan_material REQUEST
"""

import json
import os
import pathlib
import sys

import numpy as np

BATCHES = 4
# The original's, for batches of two: 4.5e-6 for each image.
LEARNING_RATE = 9e-6
ADVERSARIAL_WEIGHT = 0.8
# Published weights of LPIPS below the folder of the data.
_FILES = {
    "trunk_weights": "weights/squeezenet_v1.1_imagenet/"
    "squeezenet_weights_tf_dim_ordering_tf_kernels_notop.h5",
    "linear_weights": "weights/lpips_v0.1/squeeze.pth",
}


def make_model(config: dict, lpips_files: dict):
    """The model of keras_vq, with the losses of the other side.

    Args:
        config: Further arguments of `keras_vq.models.VQGAN`.
        lpips_files: Paths, arguments of `keras_vq.losses.LPIPS`.
    """
    from keras_vq.losses import LPIPS, AdversarialTraining
    from keras_vq.models import VQGAN

    # The `VectorQuantizer` of diffusers weighs its two losses the other way
    # round.
    return VQGAN(
        adversarial=AdversarialTraining(weight=ADVERSARIAL_WEIGHT),
        perceptual_loss=LPIPS("squeeze", **lpips_files),
        commitment_weight=1.0,
        codebook_weight=0.25,
        **config,
    )


def make(request: dict):
    """Writes `images.npz`, `keras.npz` and `torch.pt` into a folder.

    Args:
        request: Dict of `config`, arguments of `VQGAN`; `size`, the side of
            an image; `batch_size`; `data_dir`, the folder of the data or
            None; and `folder`, where to write.
    """
    import torch

    from benchmarks.torch_vqgan import required_flops
    from keras_vq.models.vqgan_networks import VQGANNetworks
    from tests import diffusers_vqgan, small_vqgan

    folder = pathlib.Path(request["folder"])
    batches = _images(request)
    np.savez(folder / "images.npz", images=batches)
    files = _lpips_files(request["data_dir"], folder)
    model = make_model(request["config"], files)
    small_vqgan.randomize(model)
    np.savez(folder / "keras.npz", *model.get_weights())
    sizes = {k: v for k, v in request["config"].items() if k != "codebook_size"}
    twin = diffusers_vqgan.vq_model(model, VQGANNetworks(**sizes))
    critic, critic_state = _critic(model.discriminator)
    trunk_state, constants = _perceptual(model.perceptual_loss)
    material = {
        "config": dict(twin.config),
        "discriminator": critic,
        "learning_rate": LEARNING_RATE,
        "adversarial_weight": ADVERSARIAL_WEIGHT,
        "states": {
            "model": twin.float().state_dict(),
            "discriminator": critic_state,
            "perceptual": trunk_state,
        },
        **constants,
    }
    torch.save(material, folder / "torch.pt")
    facts = {
        "lpips_files": files,
        "real_images": request["data_dir"] is not None,
        "parameters": model.count_params(),
        "flops": required_flops(
            material, request["size"], request["batch_size"]
        ),
    }
    (folder / "facts.json").write_text(json.dumps(facts))


def _images(request) -> np.ndarray:
    """Float32 in [-1, 1], `(BATCHES, batch, size, size, 3)`."""
    size, batch = request["size"], request["batch_size"]
    photos = pathlib.Path(request["data_dir"] or "") / "photos"
    if request["data_dir"] and photos.is_dir():
        from keras_vq.data import from_folder

        dataset = from_folder(photos, image_size=size, batch_size=batch)
        return np.stack([np.asarray(b) for b in dataset.take(BATCHES)])
    from tests import small_vqgan

    return np.stack(
        [
            small_vqgan.images(batch, size, size, 3, seed=seed)
            for seed in range(BATCHES)
        ]
    )


def _lpips_files(data_dir, folder) -> dict:
    """Paths of the published weights, or of random ones."""
    paths = {
        name: os.path.join(data_dir or "", path)
        for name, path in _FILES.items()
    }
    if data_dir and all(os.path.isfile(path) for path in paths.values()):
        return paths
    import torch

    from tests.losses.torch_lpips import LPIPS

    made = LPIPS("squeeze")
    paths = {name: os.fspath(folder / f"{name}.pth") for name in _FILES}
    torch.save(made.state_dict(), paths["trunk_weights"])
    torch.save(made.linear_state(), paths["linear_weights"])
    return paths


def _critic(discriminator):
    """Arguments of torch's network, and its state."""
    from tests.models.torch_discriminator import copy_to_torch, patch_gan

    arguments = (
        discriminator.filters,
        discriminator.num_layers,
        discriminator.channels,
        discriminator.normalization,
    )
    network = patch_gan(*arguments)
    copy_to_torch(discriminator, network)
    return arguments, network.main.float().state_dict()


def _perceptual(lpips):
    """State of torch's trunk, and the constants beside it."""
    import torch

    from keras_vq.convert.lpips import read_linear, read_trunk
    from keras_vq.losses.lpips_trunks import TRUNKS

    trunk = TRUNKS[lpips.trunk]
    files = lpips.files
    arrays, scaling = read_trunk(files["trunk_weights"], trunk.convolutions)
    linear = read_linear(files["linear_weights"], trunk.widths)
    state, arrays = {}, iter(arrays)
    for name, _ in trunk.convolutions:
        kernel, bias = next(arrays), next(arrays)
        state[f"{name}.weight"] = torch.tensor(kernel.transpose(3, 2, 0, 1))
        state[f"{name}.bias"] = torch.tensor(bias)
    return state, {
        "linear": [torch.tensor(array) for array in linear],
        "scaling": [torch.tensor(values) for values in scaling],
    }


if __name__ == "__main__":
    make(json.loads(sys.argv[1]))
