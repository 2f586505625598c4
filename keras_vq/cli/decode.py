"""`keras-vq decode IN.npz OUTDIR`: codes to images."""

import argparse
from pathlib import Path

from keras_vq.cli import options
from keras_vq.cli.batching import batches_by_size
from keras_vq.cli.environment import load_package
from keras_vq.cli.errors import CommandError
from keras_vq.cli.progress import Progress, count_of

EPILOG = """\
examples:
  keras-vq encode photos/ codes.npz
  keras-vq decode codes.npz restored/
  keras-vq decode codes.npz restored/ --preset ./my_preset

The codes of one model mean nothing to another. The file says which preset made
it, with the hash of its weights; another one is refused.
"""


def add_parser(commands) -> None:
    """Adds the command to the parser."""
    parser = commands.add_parser(
        "decode",
        help="turn codes back into images",
        description="Turns the codes that 'keras-vq encode' wrote back into "
        "images, PNG files named like the originals.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "source", metavar="IN.npz", type=Path, help="a file of codes"
    )
    parser.add_argument(
        "target", metavar="OUTDIR", type=Path, help="folder of the images"
    )
    options.add_preset(parser, "the one that the file names")
    options.add_computing(parser)
    options.add_writing(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Runs the command."""
    from keras_vq.cli.codes import read_codes
    from keras_vq.cli.writing import check_outputs, inside, png_names

    target = arguments.target
    content = read_codes(arguments.source)
    if target.exists() and not target.is_dir():
        raise CommandError(f"OUTDIR is a folder. Received: the file {target}")
    outputs = [inside(target, name) for name in png_names(content.names)]
    check_outputs(outputs, arguments.overwrite)
    tokenizer = _load(arguments, content)
    _check_codes(arguments.source, content, tokenizer.model)
    from keras_vq.utils.images import write_png

    grids = zip(content.sizes, enumerate(content.codes), strict=True)
    with Progress(len(outputs), arguments.quiet) as progress:
        for batch in batches_by_size(grids, arguments.batch_size):
            numbers, codes = zip(*batch, strict=True)
            images = tokenizer.decode(codes, content.sizes[numbers[0]])
            for number, image in zip(numbers, images, strict=True):
                write_png(outputs[number], image)
            progress.advance(len(numbers))
    if not arguments.quiet:
        print(
            f"{count_of(outputs, 'image')} to {target} with {tokenizer.preset}"
        )
    return 0


def _load(arguments: argparse.Namespace, content):
    from keras_vq.cli.loading import Tokenizer, weights_sha256

    load_package()
    preset = arguments.preset or content.preset
    found = weights_sha256(preset)
    if found != content.weights_sha256:
        raise CommandError(
            f"the codes in {arguments.source} were made by another model. "
            f"Expected: {_identity(content.preset, content.weights_sha256)}. "
            f"Received: {_identity(preset, found)}. Give the preset that "
            "encoded them with --preset"
        )
    return Tokenizer.load(preset, arguments.tile_size)


def _identity(preset: str, sha256: str) -> str:
    return f"{preset} (weights {sha256[:12]})"


def _check_codes(source: Path, content, model) -> None:
    # Before the first image is written: all or none.
    levels = model.quantizer.levels()
    for name, grids, size in zip(
        content.names, content.codes, content.sizes, strict=True
    ):
        if len(grids) != len(levels):
            raise CommandError(
                f"{source} is damaged: the model has {len(levels)} levels. "
                f"Received: codes of {len(grids)}"
            )
        for codes, level, factor in zip(
            grids, levels, model.level_factors, strict=True
        ):
            codebook_size = level.codebook_size
            if codes.min() < 0 or codes.max() >= codebook_size:
                raise CommandError(
                    f"{source} is damaged: the codes of {name} must lie in "
                    f"[0, {codebook_size}). Received: values from "
                    f"{codes.min()} to {codes.max()}"
                )
            coarsest = model.downsample_factor
            scale = coarsest // factor
            expected = tuple(-(-side // coarsest) * scale for side in size)
            if codes.shape[:2] != expected:
                raise CommandError(
                    f"{source} is damaged: an image of {size[0]}x{size[1]} "
                    f"pixels ({name}) has {expected[0]}x{expected[1]} codes. "
                    f"Received: {'x'.join(map(str, codes.shape))}"
                )
