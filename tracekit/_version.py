"""The version of this distribution, read by the build and by the resource of every span."""

from __future__ import annotations

__all__ = ["__version__"]

__version__ = "0.1.0"
