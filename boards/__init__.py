"""The boards that a design can be built for: one TOML file each, checked when it is read."""

from .board import FLOWS, HLS_BACKENDS, Board, Pin, Resources, get, names

__all__ = ["FLOWS", "HLS_BACKENDS", "Board", "Pin", "Resources", "get", "names"]
