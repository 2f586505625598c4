"""`keras-vq encode IMAGES OUT`: images to codes."""

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
  keras-vq encode photos/ codes/ --tfrecord --image-size 256
                                a whole data set, in shards; run it again to
                                go on where it was stopped

In Python:
  archive = numpy.load("codes.npz")
  archive["codes"]   whole numbers, (images, h, w) when all images are of one
                     size; otherwise one row, in which image i has the next
                     prod(archive["grids"][i]) codes; of a preset with levels
                     codes_1 (the coarsest), codes_2, ..., and grids_1, ...
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
        help="an image, a folder of them, or a TFRecord file with encoded "
        "pictures as 'image'",
    )
    parser.add_argument(
        "target",
        metavar="OUT",
        type=Path,
        help="the file to write, which ends in .npz; with --tfrecord a folder",
    )
    parser.add_argument(
        "--tfrecord",
        action="store_true",
        help="write TFRecord shards of tf.train.Examples, to train a prior "
        "on: the features codes (of a preset with levels codes_1, the "
        "coarsest, codes_2, ...), grid, size, name, and label where all "
        "images lie in subfolders. The same command goes on with the shards "
        "that are missing",
    )
    parser.add_argument(
        "--shard-size",
        metavar="N",
        type=options.positive,
        default=1000,
        help="images in a shard (default: %(default)s)",
    )
    options.add_preset(parser, options.DEFAULT_PRESET)
    options.add_reading(parser)
    options.add_writing(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Runs the command."""
    source, target = arguments.source, arguments.target
    options.require(
        arguments.tfrecord or target.suffix == ".npz",
        f"the file of codes must end in .npz. Received: {target}",
    )
    options.check_source(source)
    load_package()
    from keras_vq.cli.loading import Tokenizer
    from keras_vq.cli.reading import find_images
    from keras_vq.cli.writing import check_outputs

    if arguments.tfrecord:
        files = find_images(source, besides=target)
        check_outputs([target / "codes.json"], overwrite=True)
    else:
        files = find_images(source)
        check_outputs([target], arguments.overwrite, [f.path for f in files])
    tokenizer = Tokenizer.load(
        arguments.preset or options.DEFAULT_PRESET, arguments.tile_size
    )
    write = _write_shards if arguments.tfrecord else _write_file
    return write(arguments, files, tokenizer)


def _write_file(arguments, files, tokenizer) -> int:
    from keras_vq.cli.codes import CodeFile, write_codes

    target = arguments.target
    with Progress(len(files), arguments.quiet) as progress:
        done, failed = _encode(arguments, files, tokenizer, progress)
    if not done:
        raise _nothing(arguments)
    order = sorted(done)
    content = CodeFile(
        codes=[done[number][0] for number in order],
        sizes=[done[number][1] for number in order],
        names=[files[number].name for number in order],
        preset=tokenizer.preset,
        weights_sha256=tokenizer.weights_sha256,
    )
    write_codes(target, content, tokenizer.codebook_sizes)
    if not arguments.quiet:
        total = sum(codes.size for grids in content.codes for codes in grids)
        print(
            f"{count_of(order, 'image')} to {target} with {tokenizer.preset}: "
            f"{total} codes"
        )
    return report_failures(failed, order)


def _write_shards(arguments, files, tokenizer) -> int:
    from keras_vq.cli import shards

    folder, names = arguments.target, [file.name for file in files]
    classes = shards.class_names(names)
    size = arguments.image_size
    manifest = shards.Manifest(
        preset=tokenizer.preset,
        weights_sha256=tokenizer.weights_sha256,
        codebook_sizes=tokenizer.codebook_sizes,
        image_size=None if size is None else list(size),
        images=len(files),
        names_sha256=shards.names_sha256(names),
        per_shard=arguments.shard_size,
        class_names=classes,
    )
    manifest.write(folder, arguments.overwrite)
    missing = manifest.missing(folder)
    failed, written = [], []
    count = sum(len(manifest.numbers(shard)) for shard in missing)
    with Progress(count, arguments.quiet) as progress:
        for shard in missing:
            numbers = manifest.numbers(shard)
            part = [files[number] for number in numbers]
            done, bad = _encode(arguments, part, tokenizer, progress)
            failed += bad
            written += sorted(done)
            examples = [
                shards.example_of(
                    *done[i], part[i].name, _label(part[i], classes)
                )
                for i in sorted(done)
            ]
            shards.write_shard(manifest.path(folder, shard), examples)
    if failed and not written:
        raise _nothing(arguments)
    if not arguments.quiet:
        there = manifest.shards - len(missing)
        print(
            f"{count_of(written, 'image')} to {folder} with "
            f"{tokenizer.preset}: {count_of(missing, 'shard')} written, "
            f"{there} there before"
        )
    return report_failures(failed, written)


def _label(file, classes) -> int | None:
    from keras_vq.cli.shards import folder_of

    if classes is not None:
        return classes.index(folder_of(file.name))
    return getattr(file, "label", None)


def _encode(arguments, files, tokenizer, progress):
    """Codes and size of each image by its number, and what went wrong."""
    from keras_vq.cli.reading import ImageReader

    reader = ImageReader(
        files,
        tokenizer.model.channels,
        arguments.image_size,
        arguments.batch_size,
        arguments.skip_errors,
    )
    done = {}
    for numbers, images in reader.batches():
        codes = tokenizer.encode(images)
        for number, grids in zip(numbers, codes, strict=True):
            done[number] = (grids, images.shape[1:3])
        progress.advance(len(numbers))
    return done, reader.failed


def _nothing(arguments) -> CommandError:
    return CommandError(
        f"not one of the images in {arguments.source} can be read"
    )
