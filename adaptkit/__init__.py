"""adaptkit: fine-tune, keep pretraining, or pretrain your own? One command answers, with error bars.

Importing this package loads neither torch nor transformers.
"""

__version__ = "0.1.0"
