"""adaptkit's operators: a plain definition of each, and implementations that are proven against it.

Imports torch only; nothing here needs a GPU to import.
"""

from . import chunked, reference

__all__ = ["chunked", "reference"]
