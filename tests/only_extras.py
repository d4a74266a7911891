"""The packages that a plain install lacks."""

EXTRAS = (
    "aiohttp",
    "compressed_tensors",
    "datasets",
    "evaluate",
    "faiss",
    "fastapi",
    "gradio",
    "hypothesis",
    "liger_kernel",
    "mlflow",
    "model_signing",
    "prometheus_client",
    "pytest",
    "ray",
    "sentence_transformers",
    "starlette",
    "tensorboard",
    "trackio",
    "uvicorn",
    "vllm",
    "wandb",
)
"""What only extras bring."""
