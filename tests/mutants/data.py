"""Faults in how rows are sampled, split, deduplicated and kept apart from test text."""

from __future__ import annotations

from mutants import Mutant

OVERLAP = ("tests/test_data_overlap.py",)
DRAWING = ("tests/test_data_drawing.py",)
SPLITTING = ("tests/test_data_splitting.py",)
CUTTING = ("tests/test_data_cutting.py",)
WORDS = ("tests/test_data_words.py",)
PREPARED = "tests/test_prepared_data.py::test_"
COPY = (f"{PREPARED}a_copy_of_a_test_document_leaves_training_beyond_the_passages_that_are_judged",)
SENTENCES = (f"{PREPARED}sentences_that_a_task_tests_on_are_cut_from_the_text_and_counted",)
LARGE = (f"{PREPARED}cuts_above_a_tenth_are_named_for_all_tests_together",)
QUERIES = (f"{PREPARED}queries_are_deduplicated_drawn_and_grouped",)
CHECK = ("tests/test_data_corpus.py::test_held_out_files_are_guessed_from_whole_words",)
SETS = ("tests/test_retrieval_metrics.py::test_what_is_wrong_in_a_set_can_be_left_out_and_is_listed",)
FACTS = (
    "tests/test_data_readers.py::test_group_source_and_time_are_facts_about_a_row_and_not_its_content",
    "tests/test_data_readers.py::test_columns_that_only_happen_to_be_called_time_or_source_do_no_harm",
)
READERS = (
    "tests/test_data_readers.py::test_a_split_follows_content_not_order",
    "tests/test_data_readers.py::test_a_byte_limit_takes_the_same_rows_whatever_the_order",
)

MUTANTS = [
    Mutant("adaptkit/data/overlap.py", "COVERED = 0.1", "COVERED = 0.12", OVERLAP),
    Mutant("adaptkit/data/overlap.py", "COVERED = 0.1", "COVERED = 0.08", OVERLAP),
    Mutant("adaptkit/data/overlap.py", "if share >= COVERED]", "if share > COVERED]", OVERLAP),
    Mutant(
        "adaptkit/data/overlap.py",
        "if any(self._covered(item, hit) >= COVERED for",
        "if any(self._covered(item, hit) > 0 for",
        OVERLAP,
    ),
    Mutant(
        "adaptkit/data/overlap.py",
        'ids = set(report.contaminated if side == "test" else report.train_ids)',
        "ids = set(report.contaminated)",
        OVERLAP,
    ),
    Mutant("adaptkit/data/dedup.py", "THRESHOLD = 0.75", "THRESHOLD = 0.9", OVERLAP),
    Mutant("adaptkit/data/dedup.py", "THRESHOLD = 0.75", "THRESHOLD = 0.6", OVERLAP),
    Mutant("adaptkit/data/dedup.py", "{row.text.strip()}", "{row.text}", OVERLAP),
    Mutant("adaptkit/data/dedup.py", "\\0{_verdict(row)}", "", OVERLAP),
    Mutant(
        "adaptkit/data/dedup.py",
        "by_verdict[_verdict(rows[number])].append(number)",
        'by_verdict[""].append(number)',
        OVERLAP,
    ),
    Mutant(
        "adaptkit/data/dedup.py",
        'key=lambda row: (row.values.get("source") == SYNTHETIC, row.id, row.where))',
        "key=lambda row: row.where)",
        OVERLAP,
    ),
    Mutant("adaptkit/data/dedup.py", 'row.values.get("source") == SYNTHETIC, ', "", SPLITTING),
    Mutant(
        "adaptkit/data/splitting.py",
        "for row in written if row.cluster not in groups]",
        "for row in written]",
        SPLITTING,
    ),
    Mutant("adaptkit/data/splitting.py", 'str(row.values.get("group") or row.text)', "row.text", READERS),
    Mutant("adaptkit/data/splitting.py", 'f"{seed}:{key}"', "key", READERS),
    Mutant(
        "adaptkit/data/splitting.py", "    return able or list(units)", "    return list(units)", SPLITTING
    ),
    Mutant("adaptkit/data/splitting.py", "    return staying\n", "    return chosen\n", SPLITTING),
    Mutant("adaptkit/data/splitting.py", "if len(units[key]) <= largest]", "]", SPLITTING),
    Mutant("adaptkit/data/byte_sample.py", "key = -int(hashed, 16)", "key = -self.num_seen", READERS),
    Mutant(
        "adaptkit/data/byte_sample.py",
        "        while self.num_bytes > self.max_bytes and",
        "        if self.num_bytes > self.max_bytes and",
        READERS,
    ),
    Mutant("adaptkit/data/drawing.py", "sorted(rows, key=draw_order)[:size]", "list(rows)[:size]", DRAWING),
    Mutant("adaptkit/data/drawing.py", "    if len(counts) <= size:", "    if False:", DRAWING),
    Mutant(
        "adaptkit/data/drawing.py",
        '        return lambda row: str(row.values.get("source", "not stated"))',
        "        return lambda row: row.file",
        DRAWING,
    ),
    Mutant("adaptkit/data/drawing.py", "    if 0 < len(named) <= MAX_SOURCES:", "    if named:", DRAWING),
    Mutant(
        "adaptkit/data/drawing.py",
        "for row in draw(eligible, size - len(taken) if size else 0):",
        "for row in eligible[: size - len(taken) if size else None]:",
        DRAWING,
    ),
    Mutant(
        "adaptkit/data/drawing.py",
        '    values = {**row.values, "text": text, "group": row.cluster}\n    return Row',
        '    values = {**row.values, "text": text, "group": text}\n    return Row',
        DRAWING,
    ),
    Mutant(
        "adaptkit/data/drawing.py",
        "    return sorted(parts, key=draw_hash)",
        "    return parts[::-1]",
        DRAWING,
    ),
    Mutant(
        "adaptkit/data/splitting.py",
        "    limit = max(1, math.floor(most * len(dataset.rows)))",
        "    limit = len(dataset.rows)",
        SPLITTING,
    ),
    Mutant(
        "adaptkit/data/splitting.py",
        "        groups[row.cluster].append(row)",
        "        groups[row.id].append(row)",
        SPLITTING,
    ),
    Mutant(
        "adaptkit/data/splitting.py",
        "key=age.__getitem__, reverse=True):",
        "key=age.__getitem__):",
        SPLITTING,
    ),
    Mutant(
        "adaptkit/data/splitting.py",
        "        age[row.cluster] = max(age.get(row.cluster, moment), moment)",
        "        age[row.cluster] = min(age.get(row.cluster, moment), moment)",
        SPLITTING,
    ),
    Mutant(
        "adaptkit/data/cutting.py",
        "reason[part[0]] < 0 and size[part].sum() >= SHORTEST",
        "reason[part[0]] < 0",
        CUTTING,
    ),
    Mutant(
        "adaptkit/data/cutting.py",
        "        reason[sentence_of[marked[number]]] = number",
        "        reason[:] = number",
        CUTTING,
    ),
    Mutant("adaptkit/data/cutting.py", "    lost[int(np.argmax(lost))] += rest", "    rest += 0", CUTTING),
    Mutant(
        "adaptkit/data/cutting.py",
        "for number in reversed(range(len(marked)))",
        "for number in range(len(marked))",
        CUTTING,
    ),
    Mutant(
        "adaptkit/data/cutting.py",
        "        gone |= {row.id for row in rows}",
        "        gone |= set()",
        CUTTING,
    ),
    Mutant(
        "adaptkit/data/overlap.py",
        "            np.add.at(marks, at + length, -1)",
        "            np.add.at(marks, at + 1, -1)",
        CUTTING,
    ),
    Mutant("adaptkit/data/words.py", '.replace("i\\u0307", "i")', "", WORDS),
    Mutant("adaptkit/data/words.py", "        return 2", "        return 1", WORDS),
    Mutant("adaptkit/data/ngrams.py", "n * words.units", "n * np.ones_like(words.units)", WORDS),
    Mutant("adaptkit/data/ngrams.py", "whole = (sizes > 0) & (", "whole = (sizes < 0) & (", WORDS),
    Mutant(
        "adaptkit/data/column_roles.py",
        "        if role in FACTS and role not in self.chosen:",
        "        if False:",
        FACTS,
    ),
    Mutant(
        "adaptkit/data/readers.py",
        "    counted = {role: value for role, value in values.items() if role not in FACTS}",
        "    counted = dict(values)",
        FACTS,
    ),
    Mutant(
        "adaptkit/data/check.py",
        'HELD_OUT & {*words, *map("".join, pairwise(words))}',
        "[word for word in HELD_OUT if word in name.lower()]",
        CHECK,
    ),
    Mutant(
        "adaptkit/data/beir.py",
        "if query not in queries or document not in documents:",
        "if query not in queries:",
        SETS,
    ),
    Mutant(
        "adaptkit/study/corpus_rows.py",
        "    distinct, repeated = deduplicate(whole)\n",
        "    distinct, repeated = deduplicate(whole)\n    distinct = whole\n",
        (f"{PREPARED}repeats_in_a_test_are_left_out_and_counted",),
    ),
    Mutant(
        "adaptkit/study/corpus_rows.py",
        '    if corpus.split == "time":',
        "    if False:",
        (f"{PREPARED}the_newest_tenth_is_the_test_on_request",),
    ),
    Mutant(
        "adaptkit/compare/stages/data.py",
        "[*of.test.rows, *of.documents] for test, of in read.items()",
        "[*of.test.rows] for test, of in read.items()",
        COPY,
    ),
    Mutant(
        "adaptkit/compare/stages/data.py",
        "    against = read if name in TEXTS else {name: rows}",
        "    against = {name: rows}",
        SENTENCES,
    ),
    Mutant(
        "adaptkit/compare/stages/data.py",
        '    settings = {"split", "test_items", "dev_items"}',
        '    settings = {"split", "test_items"}',
        (f"{PREPARED}prepared_data_is_another_for_other_settings_and_the_same_for_the_same",),
    ),
    Mutant(
        "adaptkit/study/data_counts.py",
        "    return [row.id in ids or row.where in places for row in rows.test.rows]",
        "    return [row.id in ids for row in rows.test.rows]",
        (f"{PREPARED}a_passage_counts_as_contaminated_with_its_document",),
    ),
    Mutant(
        "adaptkit/study/data_counts.py",
        "share_cut=removal.num_bytes / train.num_bytes",
        "share_cut=removal.num_bytes / max(1, removal.num_rows)",
        SENTENCES,
    ),
    Mutant(
        "adaptkit/study/data_counts.py",
        "if sizes[name] > 1}",
        "if sizes[name] > 0}",
        (f"{PREPARED}test_sets_name_the_items_that_arms_answer",),
    ),
    Mutant(
        "adaptkit/study/data_counts.py",
        "for shares in sources.values()) / 2",
        "for shares in sources.values())",
        (f"{PREPARED}a_shift_of_sources_is_measured",),
    ),
    Mutant("adaptkit/study/data_record.py", "if total[1] > LARGE_CUT)", "if total[1] > 0)", LARGE),
    Mutant(
        "adaptkit/study/data_record.py",
        "(before[0] + num_bytes, before[1] + share)",
        "(num_bytes, share)",
        LARGE,
    ),
    Mutant(
        "adaptkit/study/tasks/retrieval_sets.py",
        "    items = draw(_rows([distinct]), corpus.test_items)",
        "    items = _rows([distinct])[: corpus.test_items or None]",
        QUERIES,
    ),
    Mutant(
        "adaptkit/study/tasks/retrieval_sets.py",
        "        by_answers.setdefault(tuple(answers), []).append(query)",
        "        by_answers.setdefault((), []).append(query)",
        QUERIES,
    ),
    Mutant(
        "adaptkit/study/tasks/rows.py",
        "hold_out(rows.train, corpus.dev_items, MAX_DEV_SHARE)",
        "hold_out(rows.train, 0, MAX_DEV_SHARE)",
        (f"{PREPARED}sizes_are_settings",),
    ),
]
