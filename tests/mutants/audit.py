"""Faults in what is said of a classifier's confidence."""

from __future__ import annotations

from mutants import Mutant

SELECTIVE = ("tests/test_audit_selective.py",)
CONFIDENCE = ("tests/test_audit_confidence.py",)
SECTION = ("tests/test_confidence_section.py",)
SUSPECTS = ("tests/test_audit_suspect_labels.py",)
REVIEW = ("tests/test_audit_label_review.py",)
ANSWERS = ("tests/test_serve_calibrated_answers.py",)
SELECTION = ("tests/test_label_selection.py",)
NEXT = ("tests/test_label_next.py",)
LABEL_MODEL = ("tests/test_label_model.py",)
WEAK = ("tests/test_weak_labels.py",)
SOFT = ("tests/test_soft_labels.py",)

MUTANTS = [
    Mutant("adaptkit/audit/selective.py", "np.minimum(right, np.cumsum(descending))", "right", SELECTIVE),
    Mutant(
        "adaptkit/audit/selective.py",
        "np.minimum(right, np.cumsum(descending))",
        "np.cumsum(descending)",
        SELECTIVE,
    ),
    Mutant("adaptkit/audit/selective.py", "(descending > following) &", "True &", SELECTIVE),
    Mutant("adaptkit/audit/selective.py", "known = dev.only(dev.truth_N >= 0)", "known = dev", SELECTIVE),
    Mutant("adaptkit/audit/confidence.py", "items.only(~first), accuracy", "items, accuracy", CONFIDENCE),
    Mutant(
        "adaptkit/audit/confidence.py",
        "resample(tables, clusters), confidence",
        "resample(tables), confidence",
        CONFIDENCE,
    ),
    Mutant("adaptkit/audit/confidence.py", "test, dev if on_dev else ()", "test, test", CONFIDENCE),
    Mutant("adaptkit/report/confidence_section.py", "step.gain.low <= 0", "step.gain.high <= 0", SECTION),
    Mutant("adaptkit/report/confidence_section.py", "excess_after.low > 0", "excess_after.mean > 0", SECTION),
    Mutant(
        "adaptkit/audit/suspect_labels.py",
        "means[number] = probabilities_NC[carry, number].mean()",
        "means[number] = 0.5",
        SUSPECTS,
    ),
    Mutant(
        "adaptkit/audit/suspect_labels.py", " & (probabilities_NC.argmax(axis=1) != given_N)", "", SUSPECTS
    ),
    Mutant(
        "adaptkit/audit/suspect_labels.py", "np.argsort(own_N[places]", "np.argsort(-own_N[places]", SUSPECTS
    ),
    Mutant("adaptkit/audit/out_of_fold.py", "strict=True) if own != fold]", "strict=True)]", REVIEW),
    Mutant("adaptkit/audit/out_of_fold.py", 'row.values.get("group") or row.text', "row.id", REVIEW),
    Mutant(
        "adaptkit/audit/label_review.py", "suspects |= _suspects_of_study(answered, opinions)", "pass", REVIEW
    ),
    Mutant("adaptkit/audit/label_review.py", "column: spelling[decision]", "column: decision", REVIEW),
    Mutant("adaptkit/export/record.py", "sure < self.threshold", "True", ANSWERS),
    Mutant("adaptkit/export/record.py", " / self.temperature", "", ANSWERS),
    Mutant(
        "adaptkit/labelling/selection.py",
        "errors_NC[rows, chances_NC.argmax(axis=1)] -= 1.0",
        "pass",
        SELECTION,
    ),
    Mutant("adaptkit/labelling/selection.py", "apart_NB.min(axis=1)", "apart_NB.max(axis=1)", SELECTION),
    Mutant(
        "adaptkit/labelling/selection.py",
        "np.lexsort((rng.permutation(len(pool)), ",
        "np.lexsort((np.arange(len(pool)), ",
        SELECTION,
    ),
    Mutant("adaptkit/labelling/next_rows.py", "key=lambda row: row.id)", "key=lambda row: row.where)", NEXT),
    Mutant(
        "adaptkit/labelling/next_rows.py", "spelling.get(given[row.id], given[row.id])", "given[row.id]", NEXT
    ),
    Mutant("adaptkit/labelling/next_rows.py", "first.setdefault(row.text, row)", "first[row.id] = row", NEXT),
    Mutant(
        "adaptkit/labelling/label_model.py",
        "(1 - self.accuracies_R) / (self.num_labels - 1)",
        "1 - self.accuracies_R",
        LABEL_MODEL,
    ),
    Mutant(
        "adaptkit/labelling/label_model.py",
        " & (votes_NR != NONE)).sum(axis=0)",
        ").sum(axis=0)",
        LABEL_MODEL,
    ),
    Mutant("adaptkit/labelling/label_model.py", "+ prior[1] - 1", "+ prior[1]", LABEL_MODEL),
    Mutant(
        "adaptkit/labelling/weak_labels.py",
        "measured_model(known_NR[~own_N], truth_N[~own_N], num_labels)",
        "measured_model(known_NR, truth_N, num_labels)",
        WEAK,
    ),
    Mutant(
        "adaptkit/labelling/weak_labels.py",
        "np.flatnonzero(spoken_N & ~tied_N)",
        "np.flatnonzero(spoken_N)",
        WEAK,
    ),
    Mutant(
        "adaptkit/labelling/label_rules.py",
        "{before}{re.escape(pattern)}{after}",
        "{re.escape(pattern)}",
        WEAK,
    ),
    Mutant("adaptkit/finetune/soft_labels.py", "chances_C / chances_C.sum()", "chances_C", SOFT),
    Mutant("adaptkit/finetune/task_protocol.py", "if has_soft_labels(dataset) else", "if False else", SOFT),
]
