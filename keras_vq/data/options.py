"""The options that every data source shares, and their checks."""

import dataclasses
import difflib
import numbers
import os
from collections.abc import Callable
from typing import Any

from keras_vq.data.decode import MAX_PIXELS
from keras_vq.data.resize import KERNELS


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What happens between a source of images and a batch.

    Every `keras_vq.data.from_...` function takes these by name.

    Args:
        batch_size: Images in a batch.
        image_size: Height and width of the result, one integer for both, or
            None for the images' own size (which must then be one for all).
        channels: 1 or 3; None keeps what arrays have and makes 3 of files.
        labels: Whether to give `(images, labels)` instead of `images`.
            `from_arrays` and `from_idx` have a `labels` argument of their own.
        crop: How an image of another shape is made to fit: `"center"` or
            `"random"` resizes with the aspect ratio kept until the image
            covers `image_size`, then cuts; None resizes to `image_size` and
            distorts.
        resize: With `crop`, the length in pixels that the shorter side gets
            before the cut, at least the larger of `image_size`; None means
            just large enough.
        interpolation: `"bicubic"`, `"bilinear"`, `"lanczos"` or `"area"`, all
            with antialias.
        flip: Whether to mirror each image left to right with probability 1/2.
        augment: A Keras layer, or any function of a float32 batch with
            values 0 to 255, or `"random_resized_crop"` (needs `keras-cv`).
        shuffle: Whether each epoch has an order of its own. It is a full
            permutation of all examples; no buffer is needed.
        seed: Order, crops, flips and augmentation follow from it.
        repeat: Whether the dataset is endless. Batches then run across the
            epochs' boundaries, so all are full.
        start_step: With `repeat`, the step of the first batch. It is the
            same batch, bit for bit, that a run from step 0 sees there.
        cache: Whether to keep the decoded and resized uint8 images in memory;
            each is decoded when it is first needed.
        drop_remainder: Whether to leave out a last batch that is not full.
        subset: `(start, stop)`, fractions of the source: only the examples
            between them are there, such as `(0.9, 1.0)`, the last tenth, to
            validate on. Folders are in the order of their paths: where these
            are sorted by class, so are the parts.
        shard: `(index, count)`: this dataset gives every `count`-th example,
            beginning with `index`, of the order that all shards share.
        max_pixels: Picture files with more pixels are refused before they
            are decoded.
        on_error: What a bad example does: `"raise"` ends the pipeline with an
            `ImageError` that names it; `"skip"` goes on without it, counts
            and names it (`keras_vq.data.pipeline_of(dataset).skipped`).
            With `repeat` or `drop_remainder` the next good example of the
            source takes its place, so that all batches are full and a step's
            batch is always the same; otherwise its batch is smaller.
        max_bad_fraction: With `on_error="skip"`, which part of all examples
            may be bad before a `TooManyBadImagesError` ends the pipeline, in
            [0, 1]. One bad example is always allowed, unless this is 0.
    """

    batch_size: int = 32
    image_size: int | tuple[int, int] | None = None
    channels: int | None = None
    labels: bool = False
    crop: str | None = "center"
    resize: int | None = None
    interpolation: str = "bicubic"
    flip: bool = False
    augment: str | Callable[[Any], Any] | None = None
    shuffle: bool = False
    seed: int = 0
    repeat: bool = False
    start_step: int = 0
    cache: bool = False
    drop_remainder: bool = False
    subset: tuple[float, float] | None = None
    shard: tuple[int, int] | None = None
    max_pixels: int = MAX_PIXELS
    on_error: str = "raise"
    max_bad_fraction: float = 0.01

    def __post_init__(self):
        if self.image_size is not None:
            object.__setattr__(self, "image_size", _size(self.image_size))
        _require_integer("batch_size", self.batch_size, 1)
        _require_integer("start_step", self.start_step, 0)
        _require_integer("max_pixels", self.max_pixels, 1)
        _require_integer("seed", self.seed, None)
        _require_one_of("channels", self.channels, (None, 1, 3))
        _require_one_of("crop", self.crop, (None, "center", "random"))
        _require_one_of("interpolation", self.interpolation, tuple(KERNELS))
        _require_one_of("on_error", self.on_error, ("raise", "skip"))
        _require_fraction("max_bad_fraction", self.max_bad_fraction)
        self._check_geometry()
        self._check_augment()
        self._check_subset()
        self._check_shard()
        if self.start_step and not self.repeat:
            raise ValueError(
                "`start_step` needs `repeat=True`: a finite dataset begins "
                f"with its epoch. Received: start_step={self.start_step}, "
                "repeat=False"
            )

    @classmethod
    def from_kwargs(cls, options: dict) -> "Options":
        """Builds the options, with a helpful error for an unknown name."""
        known = [field.name for field in dataclasses.fields(cls)]
        for name in options:
            if name not in known:
                close = difflib.get_close_matches(name, known, 1)
                hint = f" Did you mean `{close[0]}`?" if close else ""
                raise TypeError(
                    f"Unknown option.{hint} Received: {name}="
                    f"{options[name]!r}. The options are: {', '.join(known)}."
                )
        return cls(**options)

    @property
    def is_random(self) -> bool:
        """Whether one epoch differs from the next."""
        cropped = self.crop == "random" and self.image_size is not None
        return bool(
            self.shuffle or self.flip or cropped or self.augment is not None
        )

    def _check_geometry(self):
        if self.image_size is None:
            for name in ("resize", "augment"):
                value = getattr(self, name)
                if (
                    value is None
                    or name == "augment"
                    and value != ("random_resized_crop")
                ):
                    continue
                raise ValueError(
                    f"`{name}` needs `image_size`. Received: {name}={value!r}, "
                    "image_size=None"
                )
            if self.crop == "random":
                raise ValueError(
                    "`crop='random'` needs `image_size`. Received: "
                    "image_size=None"
                )
        if self.resize is None:
            return
        _require_integer("resize", self.resize, 1)
        if self.crop is None or self.resize < max(self.image_size):
            raise ValueError(
                "`resize` is the shorter side before the cut: it needs "
                "`crop`, and at least the larger side of `image_size`. "
                f"Received: resize={self.resize}, crop={self.crop!r}, "
                f"image_size={self.image_size}"
            )

    def _check_augment(self):
        if self.augment in (None, "random_resized_crop"):
            return
        if not callable(self.augment):
            raise ValueError(
                "`augment` must be a Keras layer, a function of a batch, or "
                f"'random_resized_crop'. Received: augment={self.augment!r}"
            )

    def _check_subset(self):
        if self.subset is None:
            return
        try:
            start, stop = self.subset
            good = 0 <= start < stop <= 1
        except (TypeError, ValueError):
            good = False
        if not good:
            raise ValueError(
                "`subset` must be (start, stop) with 0 <= start < stop <= 1. "
                f"Received: subset={self.subset!r}"
            )

    def _check_shard(self):
        if self.shard is None:
            return
        try:
            index, count = self.shard
            good = 0 <= index < count
        except (TypeError, ValueError):
            good = False
        if not good:
            raise ValueError(
                "`shard` must be (index, count) with 0 <= index < count. "
                f"Received: shard={self.shard!r}"
            )


def _size(value):
    size = (value, value) if isinstance(value, int) else tuple(value)
    if len(size) != 2 or not all(isinstance(s, int) and s > 0 for s in size):
        raise ValueError(
            "`image_size` must be a positive integer or (height, width). "
            f"Received: image_size={value!r}"
        )
    return size


def _require_integer(name, value, least):
    whole = hasattr(value, "__index__") and not isinstance(value, bool)
    if not whole or (least is not None and value < least):
        what = "an integer" if least is None else f"an integer >= {least}"
        raise ValueError(f"`{name}` must be {what}. Received: {value!r}")


def _require_fraction(name, value):
    number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not number or not 0 <= value <= 1:
        raise ValueError(
            f"`{name}` must be a number from 0 to 1. Received: {value!r}"
        )


def _require_one_of(name, value, choices):
    if value not in choices:
        listed = ", ".join(repr(c) for c in choices)
        raise ValueError(
            f"`{name}` must be one of {listed}. Received: {value!r}"
        )


def as_path(value, what: str) -> str:
    """Returns a path as a string, `~` expanded.

    Args:
        value: A string or `os.PathLike`.
        what: What it is called in the error message.
    """
    try:
        return os.path.expanduser(os.fspath(value))
    except TypeError:
        raise TypeError(
            f"{what} must be a path. Received: {value!r} of type "
            f"{type(value).__name__}"
        ) from None
