"""The error of a picture that cannot be used."""


class ImageError(ValueError):
    """A picture cannot be read; the message names the file and the reason.

    A subclass of `ValueError` of its own, so that a caller can tell "this one
    picture is bad" from "the pipeline was asked for something impossible".
    """
