"""`keras-vq convert FILE OUTDIR`: published weights as a preset."""

import argparse
import json
from pathlib import Path
from typing import Any

from keras_vq.cli.environment import load_package
from keras_vq.cli.errors import CommandError

EPILOG = """\
examples:
  keras-vq convert last.ckpt my_vqgan           VQGAN of taming-transformers
  keras-vq convert amused-256/vqvae my_vqgan    a directory of diffusers
  keras-vq convert hf://amused/amused-256/vqvae my_vqgan
  keras-vq convert vqvae.pt my_vqvae2 --argument inplace_relu_residual=true

The program finds out by itself whose weights they are; nothing in the file is
executed, and PyTorch is not needed. The folder is a preset like any other:
  keras-vq reconstruct photo.jpg seen.png --preset ./my_vqgan
"""
# Of these the first is shown to the model: 64 x 64 pixels.
_SAMPLES, _SIZE = "vqgan_tiny_imagenet", 64


def add_parser(commands) -> None:
    """Adds the command to the parser."""
    parser = commands.add_parser(
        "convert",
        help="make a preset of weights that others have published",
        description="Reads weights of another program and writes them as a "
        "preset; says whose they are, how many parameters the model has, and "
        "how well it shows a sample image.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "source",
        metavar="FILE",
        help="a file of PyTorch, safetensors or Flax, a directory of "
        "diffusers, or one of these on the Hub, hf://user/repository/path",
    )
    parser.add_argument(
        "target", metavar="OUTDIR", type=Path, help="the preset's new folder"
    )
    parser.add_argument(
        "--argument",
        metavar="NAME=VALUE",
        type=_named_value,
        action="append",
        default=[],
        dest="arguments",
        help="an argument of the model, such as one that the file does not "
        "tell; the value is JSON (may be given several times)",
    )
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="replace a preset that is already there",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Runs the command."""
    source, target = arguments.source, arguments.target
    path = _local_path(source)
    from keras_vq.convert.loading import describe, load_published
    from keras_vq.models import VQAutoencoder

    found = describe(path)
    print(
        f"{source}: {found.title} (layout {found.layout}), {found.tensors} "
        f"tensors, {found.used} of them for the model"
    )
    overrides = dict(arguments.arguments)
    model = load_published(VQAutoencoder, path, overrides=overrides)
    print(
        f"{type(model).__name__} of {model.count_params():,} parameters"
        + "".join(
            f", and its {name} of {part.count_params():,}"
            for name, part in model.preset_parts().items()
            if name not in model.fresh_parts
        )
    )
    _print_check(model)
    metadata = {
        "description": f"Converted: {found.title}.",
        "converted_from": {
            "file": source if "://" in source else path.name,
            "layout": found.layout,
        },
    }
    model.save_to_preset(
        target,
        metadata=metadata,
        overwrite=arguments.overwrite,
        # One that is fresh has learned nothing yet.
        include_parts=not model.fresh_parts,
    )
    print(f"written to {target}")
    return 0


def _local_path(source: str) -> Path:
    """Where the weights are, fetched from the Hub if that is meant."""
    if source.startswith("hf://"):
        load_package()
        from keras_vq.presets import hub

        return hub.fetch(source)
    path = Path(source)
    if not path.exists():
        raise CommandError(
            f"expected a file of weights or a directory, but there is no "
            f"{source}"
        )
    load_package()
    return path


def _named_value(text: str) -> tuple[str, Any]:
    """Reads `name=value`, the value as JSON, or as a text if it is none."""
    name, equals, value = text.partition("=")
    if not (equals and name.isidentifier()):
        raise argparse.ArgumentTypeError(
            f"expected NAME=VALUE. Received: {text}"
        )
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def _print_check(model) -> None:
    """Says how well the model shows an image that it does not know."""
    import numpy as np

    from keras_vq.applications.samples import load_samples
    from keras_vq.cli.loading import psnr

    image = load_samples(_SAMPLES, _SIZE)[:1]
    if model.channels == 1:
        image = image.mean(-1, keepdims=True).astype("uint8")
    if model.channels not in (1, 3):
        print(f"no sample image of {model.channels} channels to show it")
        return
    codes = model.encode(model.preprocess(image))
    seen = np.asarray(model.postprocess(model.decode(codes)))
    seen = seen[:, :_SIZE, :_SIZE]
    levels = codes if isinstance(codes, list) else [codes]
    used = " + ".join(str(len(np.unique(level))) for level in levels)
    print(
        f"sample image of {_SIZE}x{_SIZE} pixels: PSNR "
        f"{psnr(image, seen)[0]:.2f} dB, {used} codes used"
    )
