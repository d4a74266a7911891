"""The namespace that the operators are registered under.

kernel-builder writes a file of this name into every build, with a namespace of the build's own, so that a
build from the hub and the installed package can be loaded side by side. This one is the source tree's.
"""

from __future__ import annotations


def add_op_namespace_prefix(op_name: str) -> str:
    return f"adaptkit_kernels::{op_name}"
