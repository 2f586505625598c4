"""What can go wrong with a foreign file, one class for each thing to do."""


class ConversionError(ValueError):
    """A file of another program cannot be read. The message says why."""


class UnsafeFileError(ConversionError):
    """A file asks for more than data: foreign code, or impossible sizes."""


class DamagedFileError(ConversionError):
    """A file is truncated, altered, or no file of weights at all."""


class LayoutError(ConversionError):
    """A file is sound, but its names or shapes are not the expected ones."""


class UnavailableFileError(ConversionError):
    """A published file is not here and cannot be fetched."""
