"""Imported last by the server that stages are forked from: none collects garbage among what it has imported.

A collection would look at each of these objects and write to it: its memory would not be shared any more.
At the process's end all of it is let go: modules in C++ (nanobind's) would report their own objects as lost.
"""

from __future__ import annotations

import atexit
import gc

gc.collect()
gc.freeze()
atexit.register(gc.unfreeze)
