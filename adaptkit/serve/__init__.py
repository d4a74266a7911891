"""From a finished study to something that answers: export a model, serve it with vLLM, measure it, show it."""
