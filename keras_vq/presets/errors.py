"""What can go wrong with a preset, one class for each thing to do about it."""


class PresetError(ValueError):
    """A preset cannot be loaded or saved. The message says what to do."""


class UnknownPresetError(PresetError):
    """No such name, directory or repository."""


class PresetUnavailableError(PresetError):
    """The preset is known, but its files cannot be had here and now."""


class DamagedPresetError(PresetError):
    """A file is missing, truncated or not the one that was published."""


class UnsafePresetError(PresetError):
    """A file asks for more than data: foreign code, links, huge shapes."""
