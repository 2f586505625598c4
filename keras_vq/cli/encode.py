"""`keras-vq encode IMAGES OUT.npz`: images to codes."""

import argparse
from pathlib import Path

from keras_vq.cli import options
from keras_vq.cli.environment import load_package
from keras_vq.cli.errors import CommandError
from keras_vq.cli.progress import Progress, count_of, report_failures

EPILOG = """\
examples:
  keras-vq encode photos/ codes.npz
  keras-vq encode photos/ codes.npz --image-size 32
  keras-vq encode photo.jpg photo.npz --preset ./my_preset
  keras-vq decode codes.npz restored/                  back to images

In Python:
  archive = numpy.load("codes.npz")
  archive["codes"]   whole numbers, (images, h, w) when all images are of one
                     size; otherwise one row, in which image i has the next
                     prod(archive["grids"][i]) codes
  archive["names"], archive["sizes"], archive["info"]    files, pixels, preset
"""


def add_parser(commands) -> None:
    """Adds the command to the parser."""
    parser = commands.add_parser(
        "encode",
        help="turn images into codes",
        description="Turns images into codes and writes them, with the file "
        "names, the sizes and the preset's name and hash, into one file.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "source",
        metavar="IMAGES",
        type=Path,
        help="an image or a folder of them",
    )
    parser.add_argument(
        "target", metavar="OUT.npz", type=Path, help="the file to write"
    )
    options.add_preset(parser, options.DEFAULT_PRESET)
    options.add_reading(parser)
    options.add_writing(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Runs the command."""
    source, target = arguments.source, arguments.target
    options.require(
        target.suffix == ".npz",
        f"the file of codes must end in .npz. Received: {target}",
    )
    options.check_source(source)
    load_package()
    from keras_vq.cli.codes import CodeFile, write_codes
    from keras_vq.cli.loading import Tokenizer
    from keras_vq.cli.reading import ImageReader, find_images
    from keras_vq.cli.writing import check_outputs

    files = find_images(source)
    check_outputs([target], arguments.overwrite, [f.path for f in files])
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
    done = {}
    with Progress(len(files), arguments.quiet) as progress:
        for numbers, images in reader.batches():
            codes = tokenizer.encode(images)
            for number, grid in zip(numbers, codes, strict=True):
                done[number] = (grid, images.shape[1:3])
            progress.advance(len(numbers))
    if not done:
        raise CommandError(f"not one of the images in {source} can be read")
    order = sorted(done)
    content = CodeFile(
        codes=[done[number][0] for number in order],
        sizes=[done[number][1] for number in order],
        names=[files[number].name for number in order],
        preset=tokenizer.preset,
        weights_sha256=tokenizer.weights_sha256,
    )
    write_codes(target, content, tokenizer.model.quantizer.codebook_size)
    if not arguments.quiet:
        total = sum(codes.size for codes in content.codes)
        print(
            f"{count_of(order, 'image')} to {target} with {tokenizer.preset}: "
            f"{total} codes"
        )
    return report_failures(reader.failed, order)
