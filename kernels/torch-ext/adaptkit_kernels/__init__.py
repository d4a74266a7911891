"""adaptkit's operators: a plain definition of each, and implementations that are proven against it.

Imports torch, and Triton where it is installed; nothing here needs a GPU or Triton to import.
"""

from . import chunked, fused, launch, reference
from .fuse import Fused, fuse

__all__ = ["Fused", "chunked", "fuse", "fused", "launch", "reference"]
