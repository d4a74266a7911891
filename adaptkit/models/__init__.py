"""Models and tokenizers as Hugging Face folders: find, load, build, save, take apart, count.

    folder = find("path/to/folder")                 # or a hub id, when the hub can be reached
    model, tokenizer = load(folder, "causal"), load_tokenizer(folder)
    backbone, head_VD, bias_V = split(model)        # logits == backbone(**batch) @ head_VD.T + bias_V

Models are transformers' own classes with safetensors weights; nothing from a folder is ever executed and
nothing is unpickled.
"""

from adaptkit.models.count import Flops, ParamCount, flops_per_token, param_count
from adaptkit.models.folder import Kind, find, is_causal, model_kind
from adaptkit.models.head import Backbone, output_projection, split, unwrap
from adaptkit.models.store import Quantization, build, load, load_tokenizer, save

__all__ = [
    "Backbone",
    "Flops",
    "Kind",
    "ParamCount",
    "Quantization",
    "build",
    "find",
    "flops_per_token",
    "is_causal",
    "load",
    "load_tokenizer",
    "model_kind",
    "output_projection",
    "param_count",
    "save",
    "split",
    "unwrap",
]
