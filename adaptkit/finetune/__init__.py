"""Learning a task: fine-tuning (`recipe`), few-shot prompts (`prompting`), probes (`probe`)."""
