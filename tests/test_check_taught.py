"""`data check` refuses what training on the same base refuses, row by row, and names what is read as text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tiny_chat import CHATML, QWEN3, tokenizer_of
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.pre_tokenizers import BertPreTokenizer
from transformers import PreTrainedTokenizerFast

from adaptkit.data.check import check
from adaptkit.data.readers import DataConfig, read
from adaptkit.data.supervised import SupervisedRows
from adaptkit.errors import DataError

PLAIN = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
ROWS: list[dict[str, Any]] = [
    {"messages": PLAIN},
    {"messages": [PLAIN[0], {**PLAIN[1], "reasoning_content": "why"}]},
    {"messages": [{**PLAIN[0], "content": "is </s> here?"}, PLAIN[1]]},
    {"messages": PLAIN, "tools": [{"type": "function", "function": {"name": "f"}}]},
]


def written(folder: Path) -> str:
    path = folder / "chats.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    return str(path)


def test_it_says_what_training_says(tmp_path: Path) -> None:
    file = written(tmp_path)
    rows = read(DataConfig(files=[file]), "sft")
    for template, refused in ((CHATML, {2, 4}), (QWEN3, set())):
        tokenizer = tokenizer_of("byte_bpe", template)
        report = check([file], tokenizer=tokenizer)
        [data] = report.datasets
        assert {line.rpartition(": ")[0] for line in data.taught.refused} == {f"{file}:{n}" for n in refused}
        assert report.ok == (not refused)
        for number, row in enumerate(rows.rows, start=1):
            try:
                SupervisedRows(rows.with_rows([row]), tokenizer, 256)
            except DataError as error:
                assert number in refused and f"{file}:{number}: {error.what}" in data.taught.refused
            else:
                assert number not in refused
        assert data.taught.spelt == [f"{file}:3: </s>"]
        assert any("read as text" in note and f"{file}:3" in note for note in report.notes)
        assert any("refuses 2 rows" in note for note in report.notes) == bool(refused)


def test_without_a_base_it_names_what_a_template_must_take(tmp_path: Path) -> None:
    report = check([written(tmp_path)])
    assert report.ok and any("messages hold reasoning_content, tools" in note for note in report.notes)
    assert report.datasets[0].taught.spelt == []


def test_a_base_without_a_template_gets_the_kits_own_as_in_training(tmp_path: Path) -> None:
    tokenizer = tokenizer_of("byte_bpe")
    report = check([written(tmp_path)], tokenizer=tokenizer)
    assert len(report.datasets[0].taught.refused) == 2 and tokenizer.chat_template is None


def test_words_that_the_base_does_not_know_are_told(tmp_path: Path) -> None:
    path = tmp_path / "texts.jsonl"
    path.write_text(json.dumps({"text": "\u0440\u0430\u0437 \u0434\u0432\u0430"}) + "\n", encoding="utf-8")
    vocabulary = {"[UNK]": 0, "[CLS]": 1, "[SEP]": 2, "one": 3}
    core = Tokenizer(WordPiece(vocabulary, unk_token="[UNK]"))
    core.pre_tokenizer = BertPreTokenizer()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, unk_token="[UNK]")
    report = check([str(path)], tokenizer=tokenizer)
    assert any("100% of the tokens are unknown to the base's tokenizer" in note for note in report.notes)
    assert not any("unknown" in note for note in check([str(path)]).notes)
