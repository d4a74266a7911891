"""Imported last by the server that stages are forked from: none collects garbage among what it has imported.

A collection would look at each of these objects and write to it: its memory would not be shared any more.
"""

from __future__ import annotations

import gc

gc.collect()
gc.freeze()
