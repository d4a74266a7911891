"""Learning a task: fine-tuning (`recipe`), or prompts and probes of a model that is not trained."""
