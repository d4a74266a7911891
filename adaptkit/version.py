"""The version of this release: what `adaptkit --version`, exports and servers state."""

__version__ = "0.1.0"
