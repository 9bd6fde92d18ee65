"""The version of leancnn, for whoever writes it into a file."""

__version__ = "0.1.0"
