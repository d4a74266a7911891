"""Learning a task: fine-tuning (`recipe`), few-shot prompting (`prompting`), frozen-feature probes (`probe`)."""
