"""The offline corpus is repeatable, honest about its sources, and a real task; the data check tells what a
run would meet. Home of data.check, data.check_report, data.labels, data.offline_corpus and
data.python_source."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
import tiny_embed
from rich.console import Console

from adaptkit.data import offline_corpus as corpus_module
from adaptkit.data.check import check, is_held_out
from adaptkit.data.offline_corpus import LABELS, mask_give_aways, offline_corpus
from adaptkit.data.overlap import overlap
from adaptkit.data.python_source import docstrings, functions, parse, prose, strip
from adaptkit.data.readers import DataConfig, read
from adaptkit.data.splitting import split
from adaptkit.errors import DataError

SOURCE = '''"""Top of the file."""
import os  # inline


def f(x, y="# not a comment"):  # comment
    """Docstring of f.

    More of it.
    """
    # a whole line
    text = """
    # inside a string
    """
    return x["#"], text  # done


class C:
    """Docstring of C."""

    def method(self):
        "One-line docstring."
        return 1
'''


def test_source_is_stripped_of_docstrings_and_comments() -> None:
    tree = parse(SOURCE)
    lines = strip(SOURCE, tree)
    text = "\n".join(lines)
    assert "Docstring" not in text and "One-line" not in text and "Top of" not in text
    assert "inline" not in text and "whole line" not in text and "done" not in text and "comment)" not in text
    assert '"# not a comment"' in text and "# inside a string" in text and 'x["#"], text' in text
    assert len(lines) == len(SOURCE.split("\n")) and parse(text) is not None
    assert [f.split("(")[0] for f in functions(tree, lines)] == ["def f", "def method"]
    assert docstrings(SOURCE)[0] == "Top of the file." and parse("def (") is None


def test_prose_keeps_sentences_and_drops_code() -> None:
    sentence = (
        "The estimator is fitted to the data\nand then it is used to predict the labels of the test set."
    )
    kept = list(
        prose(
            f"{sentence}\n\n>>> x = fit(the, data)\n>>> of the and to\n\nx : int, the number\n"
            "    of things\n\nArgs: the x of y"
        )
    )
    assert kept == [" ".join(sentence.split())]


def test_give_aways_are_masked() -> None:
    assert (
        mask_give_aways("torch.nn np.zeros is_torch_available PyTorch sklearn_x input")
        == "lib.nn lib.zeros is_lib_available lib lib_x input"
    )


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> corpus_module.OfflineCorpus:
    return offline_corpus(tmp_path_factory.mktemp("cache"), 300_000, 300_000, 240)


def test_the_corpus_is_repeatable_cached_and_repaired(
    small: corpus_module.OfflineCorpus, tmp_path: Path
) -> None:
    again = offline_corpus(tmp_path, 300_000, 300_000, 240)
    assert again.manifest == small.manifest and again.general.read_bytes() == small.general.read_bytes()
    stamp = again.domain.stat().st_mtime_ns
    assert offline_corpus(tmp_path, 300_000, 300_000, 240).domain.stat().st_mtime_ns == stamp
    again.domain.write_bytes(b"damaged")
    assert offline_corpus(tmp_path, 300_000, 300_000, 240).domain.read_bytes() == small.domain.read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == [small.general.parent.name]


def test_the_manifest_names_every_source(small: corpus_module.OfflineCorpus) -> None:
    named = {d["package"]: d for d in small.manifest["distributions"]}
    assert all(d["version"] and d["licence"] and d["distribution"] for d in named.values())
    text = json.dumps(small.manifest)
    assert "site-packages" not in text and str(Path.home()) not in text
    for name, path in (
        ("general.jsonl", small.general),
        ("domain.jsonl", small.domain),
        ("functions.jsonl", small.functions),
    ):
        data = read(DataConfig(files=[str(path)]), "text")
        entry = small.manifest["files"][name]
        assert (
            entry["rows"] == len(data.rows)
            and entry["num_bytes"] == data.num_bytes
            and "not stated" not in data.licences
        )
        assert set(entry["by_package"]) <= set(named)
    assert 250_000 < small.manifest["files"]["general.jsonl"]["num_bytes"] < 400_000


def test_functions_are_balanced_unmarked_and_split_by_module(small: corpus_module.OfflineCorpus) -> None:
    data = read(DataConfig(files=[str(small.functions)]), "labelled")
    counts = {label: sum(row.values["label"] == label for row in data.rows) for label in data.labels}
    assert set(counts) <= set(LABELS) and len(counts) == 4 and max(counts.values()) == min(counts.values())
    assert all(mask_give_aways(row.values["text"]) == row.values["text"] for row in data.rows)
    rest, held = split(data, 0.2)
    assert not {row.values["group"] for row in rest.rows} & {row.values["group"] for row in held.rows}
    assert overlap(read(DataConfig(files=[str(small.domain)])), held).share < 0.05


def test_too_few_packages_are_said_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpus_module, "_package", lambda name: None)
    with pytest.raises(DataError, match="too few"):
        offline_corpus(tmp_path)


@pytest.fixture()
def files(tmp_path: Path, tiny_text: list[str]) -> list[str]:
    rows = [{"text": text, "label": "ab"[i % 2], "licence": "CC0"} for i, text in enumerate(tiny_text)]
    train = [json.dumps(row) for row in [*rows[:150], rows[0]]] + ['{"text": 1, "label": "a"}', "{"]
    test = [json.dumps(row) for row in [*rows[150:], rows[5]]]
    for name, lines in (("train", train), ("test", test)):
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    return [str(tmp_path / "train.jsonl"), str(tmp_path / "test.jsonl")]


def test_check_tells_everything_before_training(files: list[str]) -> None:
    report = check(files)
    train, test = report.datasets
    assert not report.ok and (train.kind, train.rows, test.rows) == ("labelled", 151, 51)
    assert [bad.split(": ")[0] for bad in train.bad_rows] == [f"{files[0]}:152", f"{files[0]}:153"]
    assert (
        train.labels == {"a": 76, "b": 75}
        and train.licences == {"CC0": 151}
        and train.duplicates.num_exact == 1
    )
    assert list(train.lengths) == ["0", "0.05", "0.5", "0.95", "1"] and 1.5 < test.bytes_per_token < 12
    assert len(report.overlaps["test.jsonl in train.jsonl"].contaminated) == 1
    assert json.loads(json.dumps(report.as_json()))["datasets"][0]["tokens"] == train.tokens
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(report.render())
    shown = console.export_text()
    assert all(
        word in shown for word in ("labelled", "train.jsonl:152", "2 bad rows", "CC0", "rows need mending")
    )


def test_check_of_configs_and_clean_data(files: list[str], tiny_text: list[str]) -> None:
    from adaptkit.data.tokenizers import train_tokenizer

    report = check({"dev": DataConfig(files=files[1:])}, tokenizer=train_tokenizer(tiny_text, "bpe", 300))
    assert report.ok and report.overlaps == {} and report.datasets[0].tokenizer == "given"
    with pytest.raises(DataError):
        check([])


@pytest.mark.parametrize(
    ("name", "held_out"),
    [
        ("test.jsonl", True),
        ("tickets-dev.csv", True),
        ("my_held-out.jsonl", True),
        ("Validation.jsonl.gz", True),
        ("heldout.txt", True),
        ("attest.jsonl", False),
        ("latest.csv", False),
        ("developers.jsonl", False),
        ("evaluation_of_train.jsonl", False),
        ("shareholders.jsonl", False),
    ],
)
def test_held_out_files_are_guessed_from_whole_words(name: str, held_out: bool) -> None:
    assert is_held_out(name) == held_out


def test_check_says_that_it_guessed(tmp_path: Path, tiny_text: list[str]) -> None:
    for name in ("train", "test", "latest"):
        lines = [json.dumps({"text": text}) for text in tiny_text[:50]]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    report = check([str(tmp_path / f"{name}.jsonl") for name in ("train", "test", "latest")])
    assert report.guessed == report.as_json()["held_out_by_name"] == ["test.jsonl"]
    assert "test.jsonl: taken as held out, guessed from its name" in report.notes
    assert set(report.overlaps) == {"test.jsonl in train.jsonl", "test.jsonl in latest.jsonl"}


def test_check_tells_the_first_fault_as_a_run_does(tmp_path: Path) -> None:
    file = tmp_path / "x.jsonl"
    for content, line in (
        (b"[1]\n[2]\n", 1),
        (b'{"text": 1}\n{"text": null}\n', 1),
        (b"\xff\n\xfe\n", 1),
        (b"", None),
    ):
        file.write_bytes(content)
        with pytest.raises(DataError) as of_run:
            read(DataConfig(files=[str(file)]))
        with pytest.raises(DataError) as of_check:
            check([str(file)])
        assert str(of_check.value) == str(of_run.value)
        assert line is None or of_check.value.where == f"{file}:{line}"


def test_check_names_what_labels_and_groups_hide(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        {"text": f"text {i} of many", "label": ["a", "A "][i % 2], "group": "gh"[i % 2]} for i in range(60)
    ]
    rows.append({**rows[0], "label": "A "})
    for name, part in (("train", rows), ("test", [{"text": "other words here", "label": "z"}])):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part))
    files = [str(tmp_path / f"{name}.jsonl") for name in ("train", "test")]
    notes = "\n".join(check(files).notes)
    assert "labels 'A ', 'a' differ only in blanks or capitals" in notes
    assert "test.jsonl: no training row has its labels z; a run refuses them" in notes
    assert "1 text stands with different labels" in notes
    assert "column 'group' has 2 values in 61 rows" in notes and capsys.readouterr().err == ""
    given_up = check([DataConfig(files=[file], columns={"group": "none"}) for file in files])
    assert "'group'" not in "\n".join(given_up.notes)


def test_check_reads_a_retrieval_folder(tmp_path: Path) -> None:
    folder = tiny_embed.write_set(tmp_path / "set")
    report = check([str(folder)])
    names = ["set documents", "set queries dev", "set queries test", "set queries train"]
    assert report.ok and [d.name for d in report.datasets] == names and not report.guessed
    assert [d.rows for d in report.datasets][:3] == [40, 8, 8]
    pairs = {f"set queries {split} in set queries train" for split in ("dev", "test")}
    assert set(report.overlaps) == pairs
    with (folder / "qrels" / "test.tsv").open("a") as file:
        file.write("nobody\tnothing\t1\n")
    report = check([str(folder)])
    bad = {d.name: d.bad_rows for d in report.datasets if d.bad_rows}
    assert not report.ok and list(bad) == ["set queries test"]
    assert bad["set queries test"][0].endswith("test.tsv:10: 'nobody' is not in the set")


@pytest.mark.data
def test_biomedical_text_is_read_and_its_own_tokenizer_needs_fewer_tokens(data_root: Path) -> None:
    from adaptkit.data.tokenizers import bytes_per_token, train_tokenizer

    def texts(name: str, size: int) -> list[str]:
        config = DataConfig(files=[str(data_root / "dev_mini" / f"{name}.jsonl.gz")], max_bytes=size)
        return [row.text for row in read(config, "text").rows]

    own, other = (
        train_tokenizer(texts(f"{name}/train", 2_000_000), "bpe", 4096)
        for name in ("biomed/corpus", "generic")
    )
    held_out = texts("biomed/corpus/dev", 150_000)
    assert bytes_per_token(own, held_out) > 1.1 * bytes_per_token(other, held_out)
