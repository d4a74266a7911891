"""The study that needs nothing but this installation: Python's own text, a small model made on the spot.

General text is the English prose of the installed packages' documentation, domain text their Python source,
the labelled task which package a function comes from. The shift is real; the models are small enough for two
cores. Its arms and controls are those that fit into ten minutes; those left out are named.
"""

from __future__ import annotations

from pathlib import Path

from adaptkit.architecture import SizeConfig
from adaptkit.data.offline_corpus import offline_corpus
from adaptkit.data.readers import DataConfig
from adaptkit.pretrain.config import TokenizerConfig
from adaptkit.study.budget import BudgetConfig
from adaptkit.study.config import CorpusConfig, StudyConfig, TaskConfig
from adaptkit.trainer.config import TrainerConfig

GENERAL_BYTES, DOMAIN_BYTES, NUM_FUNCTIONS = 6_000_000, 6_000_000, 3_000
TEST_PASSAGES, DEV_PASSAGES = 200, 30
"""Fewer than usual: every one of the models reads them."""

LEFT_OUT = ("mixed", "tapt")
"""Origins that would make it longer than ten minutes."""


def quickstart_config(root: Path) -> StudyConfig:
    """The study of `adaptkit compare --quickstart`; its corpus is collected once and kept under `root`."""
    corpus = offline_corpus(root / "corpus", GENERAL_BYTES, DOMAIN_BYTES, NUM_FUNCTIONS)

    def corpora(path: Path) -> CorpusConfig:
        train = DataConfig(files=[str(path)])
        return CorpusConfig(train=train, test_items=TEST_PASSAGES, dev_items=DEV_PASSAGES)

    return StudyConfig(
        name="quickstart",
        base_flops=6e12,
        without=list(LEFT_OUT),
        domain=corpora(corpus.domain),
        general=corpora(corpus.general),
        tasks=[TaskConfig(name="package", max_length=96, train=DataConfig(files=[str(corpus.functions)]))],
        budget=BudgetConfig(amount=1.2e12, task_share=0.4, trials=2, trial_share=0.3),
        size=SizeConfig(params=600_000, seq_len=128),
        tokenizer=TokenizerConfig(vocab_size=2048),
        trainer=TrainerConfig(global_batch_size=16),
    )
