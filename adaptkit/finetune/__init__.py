"""Learning a task: fine-tuning (`recipe`), prompts (`prompted_labels`, `prompted_answers`), probes (`probe`)."""
