"""The version, in the one place that `setup.cfg` reads too."""

__version__ = "0.1.0"
