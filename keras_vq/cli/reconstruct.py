"""`keras-vq reconstruct IN OUT`: images as the model sees them."""

import argparse
from pathlib import Path

from keras_vq.cli import options
from keras_vq.cli.environment import load_package
from keras_vq.cli.errors import CommandError
from keras_vq.cli.progress import Progress, count_of, report_failures

EPILOG = """\
examples:
  keras-vq reconstruct photo.jpg seen.png
  keras-vq reconstruct photos/ seen/                 a folder, with its folders
  keras-vq reconstruct photos/ pairs/ --side-by-side originals beside results
  keras-vq reconstruct photos/ seen/ --preset ./my_preset --image-size 256

Results are PNG files (no further loss), named like their originals. The last
line gives the mean PSNR over the images (of bytes, per image) and the bits
that the codes of an image take.
"""


def add_parser(commands) -> None:
    """Adds the command to the parser."""
    parser = commands.add_parser(
        "reconstruct",
        help="encode and decode images, to see what is lost",
        description="Encodes images, decodes them again and writes the "
        "result: what of an image survives the model.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "source", metavar="IN", type=Path, help="an image or a folder of them"
    )
    parser.add_argument(
        "target",
        metavar="OUT",
        type=Path,
        help="a PNG file when IN is an image, a folder when IN is one",
    )
    options.add_preset(parser, options.DEFAULT_PRESET)
    parser.add_argument(
        "--side-by-side",
        action="store_true",
        help="write the original to the left of its reconstruction",
    )
    options.add_reading(parser)
    options.add_writing(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Runs the command."""
    options.check_source(arguments.source)
    load_package()
    # Everything from here on needs NumPy or more.
    from keras_vq.cli.loading import Tokenizer, beside, psnr
    from keras_vq.cli.reading import ImageReader, find_images
    from keras_vq.cli.writing import check_outputs
    from keras_vq.utils.images import write_png

    source, target = arguments.source, arguments.target
    files = find_images(source, besides=target)
    outputs = _outputs(source, target, files)
    check_outputs(
        outputs, arguments.overwrite, inputs=[file.path for file in files]
    )
    tokenizer = Tokenizer.load(
        arguments.preset or options.DEFAULT_PRESET, arguments.tile_size
    )
    reader = ImageReader(
        files,
        tokenizer.model.channels,
        arguments.image_size,
        arguments.batch_size,
        arguments.skip_errors,
    )
    ratios, bits = [], []
    with Progress(len(files), arguments.quiet) as progress:
        for numbers, images in reader.batches():
            size = images.shape[1:3]
            seen = tokenizer.decode(tokenizer.encode(images), size)
            ratios.extend(psnr(images, seen))
            bits.extend([tokenizer.model.bits_per_image(*size)] * len(images))
            if arguments.side_by_side:
                seen = beside(images, seen)
            for number, image in zip(numbers, seen, strict=True):
                write_png(outputs[number], image)
            progress.advance(len(numbers))
    if bits and not arguments.quiet:
        mean = sum(ratios) / len(ratios)
        print(
            f"{count_of(bits, 'image')} to {target} with {tokenizer.preset}: "
            f"mean PSNR {mean:.2f} dB, {_range(bits)} bits per image"
        )
    return report_failures(reader.failed, bits)


def _outputs(source: Path, target: Path, files: list) -> list[Path]:
    from keras_vq.cli.writing import png_names

    if source.is_dir():
        if target.exists() and not target.is_dir():
            raise CommandError(
                f"{source} is a folder, so the results need a folder too. "
                f"Received: the file {target}"
            )
        names = png_names([file.name for file in files])
        return [target / name for name in names]
    if target.is_dir():
        return [target / png_names([source.name])[0]]
    options.require(
        target.suffix.lower() == ".png",
        "the result is a PNG file: OUT must end in .png, or be a folder that "
        f"is there. Received: {target}",
    )
    return [target]


def _range(values: list[float]) -> str:
    low, high = min(values), max(values)
    return f"{low:.0f}" if low == high else f"{low:.0f} to {high:.0f}"
