"""Faults in how models are asked: instructions, examples, chat templates, and the choice of a format."""

from __future__ import annotations

from mutants import Mutant

FORMATS = ("tests/test_prompt_formats.py",)
TASKS = ("tests/test_task_prompts.py",)
PAID = ("tests/test_client_paid.py",)
ASKED = ("tests/test_asked_answers.py",)
EXIT = ("tests/test_exit_plan.py",)
PASSAGES = ("tests/test_rag_training.py",)
FIELDS = ("tests/test_extract.py",)
OWN = ("tests/test_own_metric.py",)

MUTANTS = [
    # Examples come from training rows, balanced, by content
    Mutant(
        "adaptkit/finetune/prompt_examples.py", "if row.text not in apart", "if row.text is not None", FORMATS
    ),
    Mutant(
        "adaptkit/finetune/prompt_examples.py",
        "return [rows[place] for place in in_turns(labels, count)]",
        "return rows[:count]",
        FORMATS,
    ),
    Mutant("adaptkit/finetune/prompt_examples.py", 'f"{seed} {row.id} {row.text}"', "row.text", FORMATS),
    # What is said
    Mutant("adaptkit/finetune/prompt_words.py", "if len(set(names)) < len(names):", "if not names:", FORMATS),
    Mutant("adaptkit/finetune/prompt_words.py", "if name not in label_names:", "if not name:", TASKS),
    # Formats: the first differ most, each once
    Mutant("adaptkit/finetune/prompt_formats.py", '("plain", False, False, some),', "", FORMATS),
    Mutant(
        "adaptkit/finetune/prompt_formats.py",
        "descriptions and instruction and choices.described",
        "descriptions",
        FORMATS,
    ),
    Mutant("adaptkit/finetune/prompt_formats.py", 'choices.chat or style == "plain"', "style", FORMATS),
    # The chat template
    Mutant("adaptkit/finetune/prompt_chat.py", '{"enable_thinking": False}', "{}", FORMATS),
    Mutant("adaptkit/finetune/prompt_chat.py", "    if has_system:\n", "    if head:\n", FORMATS),
    Mutant("adaptkit/finetune/prompt_chat.py", 'if role != "system"]', "]", FORMATS),
    # What fits, and how a label ends
    Mutant(
        "adaptkit/finetune/prompt_template.py",
        "while len(ids) > self.limit and room > 0:",
        "while not ids:",
        FORMATS,
    ),
    Mutant("adaptkit/finetune/prompt_template.py", "if share >= SHORTEST_TEXT:", "if True:", FORMATS),
    Mutant(
        "adaptkit/finetune/prompted_labels.py",
        "if self.causal and begin_alike(answers):",
        "if not answers:",
        FORMATS,
    ),
    # An API is paid once, below its ceiling, with a key that nobody sees
    Mutant("adaptkit/client/paid.py", "if spent + usd > self.ceiling:", "if spent > self.ceiling:", PAID),
    Mutant("adaptkit/client/paid.py", "            self.ledger.correct(-most)\n", "", PAID),
    Mutant("adaptkit/client/paid.py", "self.ledger.correct(usd - most)", "pass", PAID),
    Mutant("adaptkit/client/paid.py", "fcntl.flock(file, fcntl.LOCK_EX)", "pass", PAID),
    Mutant("adaptkit/client/paid.py", '"model": self.model, **request}', '"model": self.model}', PAID),
    Mutant("adaptkit/client/key_file.py", "stat.S_IRGRP | ", "", PAID),
    Mutant(
        "adaptkit/client/connection.py", "refusal.status not in self._again", "refusal.status != 429", PAID
    ),
    Mutant("adaptkit/client/connection.py", "parsedate_to_datetime(text).timestamp()", "float(text)", PAID),
    Mutant("adaptkit/finetune/asked_answers.py", "self.constrained = False", "raise", ASKED),
    Mutant(
        "adaptkit/finetune/asked_answers.py",
        "for reply in self.replies if not reply.kept)",
        "for reply in self.replies)",
        ASKED,
    ),
    Mutant(
        "adaptkit/finetune/asked_answers.py",
        "return left[0] if len(left) == 1 else None",
        "return left[0] if left else None",
        ASKED,
    ),
    Mutant("adaptkit/compare/outgoing.py", "usd > config.api.ceiling", "usd < 0", ASKED),
    Mutant("adaptkit/study/config.py", "if asked and self.api is None:", "if not asked and self.api:", ASKED),
    Mutant("adaptkit/study/api.py", '"key_file", "ceiling", "at_once"', '"ceiling", "at_once"', ASKED),
    Mutant("adaptkit/study/exit_plan.py", "if saved <= 0:", "if saved < -1e9:", EXIT),
    Mutant("adaptkit/study/flips.py", "bills[name] = volume * each", "pass", EXIT),
    Mutant(
        "adaptkit/study/preference.py", "if results.record.price is None or not known:", "if not known:", EXIT
    ),
    Mutant("adaptkit/finetune/prompted_labels.py", "+ np.log(self.shares))", ")", FORMATS),
    Mutant("adaptkit/finetune/prompted_labels.py", "- np.log(leaning + 1e-30)", "", FORMATS),
    # A prompt is part of a run's identity, and only of a prompted one's
    Mutant(
        "adaptkit/compare/stages/task.py",
        "fields |= {name: getattr(work.task, name) for name in sorted(asked)}",
        "pass",
        TASKS,
    ),
    Mutant(
        "adaptkit/study/task.py",
        "if getattr(self, name) and name not in self.task_kind.asks]",
        "if name not in PROMPT_FIELDS]",
        TASKS,
    ),
    # What is looked up: never a row's own answer, counted where it is sent, claimed beside its controls
    Mutant("adaptkit/study/tasks/passage_finder.py", "own |= self._copies(item, ranking)", "pass", PASSAGES),
    Mutant("adaptkit/compare/outgoing.py", "    if arm.looks_up:", "    if False:", ASKED),
    Mutant(
        "adaptkit/study/controls.py",
        'if any(arm.adaptation == "rag-lora" for arm in arms):',
        "if False:",
        PASSAGES,
    ),
    Mutant(
        "adaptkit/compare/build_stages.py",
        "(PREPARE, *origin, *chosen, *needs), flops)",
        "(PREPARE, *origin, *needs), flops)",
        PASSAGES,
    ),
    # Fields: an answer fits its schema or counts as none
    Mutant(
        "adaptkit/data/json_fields.py",
        "return None if self.fault(values) else values",
        "return values",
        FIELDS,
    ),
    Mutant("adaptkit/finetune/extraction.py", '"valid": values is not None,', '"valid": True,', FIELDS),
    # A metric of one's own gives one number for each item, in time
    Mutant("adaptkit/study/own_metric.py", "if len(values) != len(asked):", "if False:", OWN),
    Mutant("adaptkit/study/own_metric.py", "or not math.isfinite(value)", "", OWN),
]
