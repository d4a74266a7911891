"""Faults in how models are asked: instructions, examples, chat templates, and the choice of a format."""

from __future__ import annotations

from mutants import Mutant

FORMATS = ("tests/test_prompt_formats.py",)
TASKS = ("tests/test_task_prompts.py",)

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
    # A prompt is part of a run's identity, and only of a prompted one's
    Mutant(
        "adaptkit/compare/stages/task.py",
        "fields |= {name: getattr(work.task, name) for name in PROMPT_FIELDS}",
        "pass",
        TASKS,
    ),
    Mutant(
        "adaptkit/study/task.py",
        "if getattr(self, name) and name not in self.task_kind.asks]",
        "if name not in PROMPT_FIELDS]",
        TASKS,
    ),
]
