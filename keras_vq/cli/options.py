"""Options that several commands share."""

import argparse
import math
from pathlib import Path

from keras_vq.cli.errors import CommandError, UsageError

DEFAULT_PRESET = "vqvae_cifar"


class Parser(argparse.ArgumentParser):
    """Reports a wrong command line in one line, like any other error."""

    def __init__(self, **kwargs):
        # An abbreviation would change its meaning with the next option.
        super().__init__(**{"allow_abbrev": False, **kwargs})

    def error(self, message: str):
        """Raises the message as an error that is shown as one line."""
        raise UsageError(f"{message} (see '{self.prog} --help')")


def add_preset(parser: argparse.ArgumentParser, default: str) -> None:
    """Adds `--preset`; `default` is what its help says."""
    parser.add_argument(
        "--preset",
        metavar="NAME|DIR",
        help="a name from 'keras-vq list', or a folder written by "
        f"model.save_to_preset() (default: {default})",
    )


def add_reading(parser: argparse.ArgumentParser) -> None:
    """Adds the options of commands that read images."""
    parser.add_argument(
        "--image-size",
        metavar="N|HxW",
        type=image_size,
        help="scale the shorter side to N (or the image to cover H x W) and "
        "crop the middle to N x N (H x W); by default every image keeps its "
        "own size, which may be any",
    )
    parser.add_argument(
        "--skip-errors",
        action="store_true",
        help="go on when an image cannot be read; it is named at the end and "
        "the exit status is 1",
    )
    add_computing(parser)


def add_computing(parser: argparse.ArgumentParser) -> None:
    """Adds `--batch-size` and `--tile-size`, which bound the memory."""
    parser.add_argument(
        "--batch-size",
        metavar="N",
        type=positive,
        default=16,
        help="images of the same size that are computed at once (default: "
        "%(default)s)",
    )
    parser.add_argument(
        "--tile-size",
        metavar="N",
        type=positive,
        help="go through images tile by tile, N x N pixels at a time: for "
        "images too large for the memory (default: each image at once)",
    )


def add_writing(parser: argparse.ArgumentParser) -> None:
    """Adds the options of commands that write files."""
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="replace files that are already there",
    )
    parser.add_argument(
        "--quiet", action="store_true", help="no progress bar and no summary"
    )


def positive(text: str) -> int:
    """Reads a whole number >= 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(
            f"expected a whole number from 1. Received: {text}"
        )
    return int(text)


def natural(text: str) -> int:
    """Reads a whole number >= 0 of 32 bits, such as a seed."""
    if not text.isdecimal() or int(text) >= 2**32:
        raise argparse.ArgumentTypeError(
            f"expected a whole number from 0 to {2**32 - 1}. Received: {text}"
        )
    return int(text)


def positive_float(text: str) -> float:
    """Reads a finite number > 0."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(
            f"expected a number above 0. Received: {text}"
        )
    return value


def image_size(text: str) -> tuple[int, int]:
    """Reads `64` or `64x96` as (height, width)."""
    parts = text.lower().split("x")
    if len(parts) not in (1, 2):
        raise argparse.ArgumentTypeError(
            f"expected a size such as 64 or 64x96. Received: {text}"
        )
    height, width = (positive(part) for part in (parts[0], parts[-1]))
    return height, width


def require(condition: bool, message: str) -> None:
    """Raises a usage error unless the condition holds."""
    if not condition:
        raise UsageError(message)


def check_source(source: Path) -> None:
    """Refuses a missing IN at once, before the seconds of an import."""
    if not source.exists():
        raise CommandError(
            f"expected an image or a folder of images, but there is no {source}"
        )
