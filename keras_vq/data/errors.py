"""The errors of pictures that cannot be used."""


class ImageError(ValueError):
    """A picture cannot be read; the message names the file and the reason.

    A subclass of `ValueError` of its own, so that a caller can tell "this one
    picture is bad" from "the pipeline was asked for something impossible".
    """


class TooManyBadImagesError(ImageError):
    """More examples are bad than `max_bad_fraction` allows.

    The message names the first ones with their reasons.
    """
