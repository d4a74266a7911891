"""Read a data set of a study: training rows without repeats, and the items to judge on."""

from __future__ import annotations

from adaptkit.data.drawing import PASSAGE_BYTES, draw, draw_passages
from adaptkit.data.readers import Dataset, Want, read
from adaptkit.data.splitting import newest, split
from adaptkit.notices import tell
from adaptkit.study.task import TEST_SHARE, CorpusConfig, CorpusRows


def read_corpus(corpus: CorpusConfig, want: Want) -> CorpusRows:
    """Training rows without duplicates, and what is judged on: drawn from the test that is named or held out.

    Of texts passages are drawn, of anything else rows.
    """
    from adaptkit.data.dedup import deduplicate

    train, report = deduplicate(read(corpus.train, want))
    if report.num_conflicts:
        tell(f"{corpus.train.files[0]}: {report.conflict_sentence}")
    train, whole, origin = train_and_test(corpus, train, want)
    distinct, repeated = deduplicate(whole)
    if want == "text":
        items = draw_passages(distinct, corpus.test_items)
        places = {row.where for row in items.rows}
        documents = tuple(row for row in distinct.rows if row.where in places)
        what = f"{len(items.rows):,} passages of at most {PASSAGE_BYTES:,} bytes from {len(documents):,} of"
        drawn = f"{what} {len(distinct.rows):,} documents"
    else:
        items, documents = distinct.with_rows(draw(distinct.rows, corpus.test_items)), ()
        drawn = f"{len(items.rows):,} of {len(distinct.rows):,} rows"
    drawn += f", by content hash, in proportion to labels, sources and groups, {origin}"
    if repeated.num_conflicts:
        drawn += f"; {repeated.conflict_sentence}"
    num_repeated = repeated.num_exact + repeated.num_near
    return CorpusRows(train, items, report.counts, documents, len(whole.rows), num_repeated, drawn)


def train_and_test(corpus: CorpusConfig, train: Dataset, want: Want) -> tuple[Dataset, Dataset, str]:
    """What may be trained on, what items are drawn from, and where those come from, in words."""
    if corpus.test is not None:
        return train, read(corpus.test, want), "from the test that is named"
    if corpus.split == "time":
        return *newest(train, TEST_SHARE), "from the newest tenth"
    return *split(train, TEST_SHARE, seed=1), "from a tenth held out by hash, whole groups"
