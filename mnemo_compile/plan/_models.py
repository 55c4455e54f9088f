"""Models by name: configurations that need no network, and what each task trains of a model."""

import difflib
import os
import pathlib
import socket
import urllib.parse
import urllib.request
import warnings
from typing import Any, Literal, NamedTuple, TYPE_CHECKING

from ..errors import MissingExtraError, MnemoError, UsageError

if TYPE_CHECKING:
    import torch


class Model(NamedTuple):
    """A configuration that is known without a network."""

    hub: str | None
    """The name of its weights on the hub, which is a name of the model too."""
    config: str
    """A class of configurations of transformers."""
    options: dict[str, Any]
    """What differs from the defaults of the class."""


def _vit(hub: str | None, width: int, layers: int, heads: int, patch: int) -> Model:
    sizes = {"hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": heads}
    return Model(hub, "ViTConfig", {**sizes, "intermediate_size": 4 * width, "patch_size": patch})


def _bert(hub: str, width: int, layers: int, heads: int) -> Model:
    sizes = {"hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": heads}
    return Model(hub, "BertConfig", {**sizes, "intermediate_size": 4 * width})


def _t5(size: str, width: int, inner: int, layers: int, heads: int) -> Model:
    sizes = {"d_model": width, "d_ff": inner, "num_layers": layers, "num_heads": heads, "d_kv": 64}
    kind = {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False, "decoder_start_token_id": 0}
    return Model(f"google/t5-v1_1-{size}", "T5Config", {**sizes, **kind})


MODELS = {
    "vit-base": _vit("google/vit-base-patch16-224-in21k", 768, 12, 12, 16),
    "vit-large": _vit("google/vit-large-patch16-224-in21k", 1024, 24, 16, 16),
    "vit-huge": _vit("google/vit-huge-patch14-224-in21k", 1280, 32, 16, 14),
    # The largest of the paper, at the width of vit-huge.
    "vit-36x16": _vit(None, 1280, 36, 16, 14),
    "bert-tiny": _bert("google/bert_uncased_L-2_H-128_A-2", 128, 2, 2),
    "bert-base": _bert("google-bert/bert-base-uncased", 768, 12, 12),
    "bert-large": _bert("google-bert/bert-large-uncased", 1024, 24, 16),
    "t5-small": _t5("small", 512, 1024, 8, 6),
    "t5-base": _t5("base", 768, 2048, 12, 12),
    "t5-large": _t5("large", 1024, 2816, 24, 16),
    "t5-xl": _t5("xl", 2048, 5120, 24, 32),
    "t5-xxl": _t5("xxl", 4096, 10240, 24, 64),
}
"""Well-known models by short names. T5 is version 1.1."""


Kind = Literal["encoder", "decoder", "both"]
"""What a model is made of."""


class Head(NamedTuple):
    """What a task trains a model of some kind to do."""

    text: str
    """What the model must be able to do."""
    auto: str
    """The class of transformers that makes the model."""
    models: str
    """The mapping of transformers that lists the configurations of such models."""
    example: str | None
    """The module of the example that does it."""
    kind: Kind
    pretrained: bool = True
    """Whether training begins with the weights of a checkpoint."""
    prompt: str | None = None
    """The kind of task of PEFT, where only a soft prompt is trained."""


_IMAGES = ("AutoModelForImageClassification", "MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING")
_TEXTS = ("AutoModelForSequenceClassification", "MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING")
_MASKED = ("AutoModelForMaskedLM", "MODEL_FOR_MASKED_LM_MAPPING")
_CAUSAL = ("AutoModelForCausalLM", "MODEL_FOR_CAUSAL_LM_MAPPING")
_PAIRS = ("AutoModelForSeq2SeqLM", "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING")

TASKS: dict[str, tuple[Head, ...]] = {
    "finetune": (
        Head("classify images", *_IMAGES, "examples.finetune_vit", "encoder"),
        Head("classify texts", *_TEXTS, "examples.finetune_text", "encoder"),
    ),
    "pretrain": (
        Head("classify images", *_IMAGES, "examples.pretrain_vit", "encoder", pretrained=False),
        Head("predict masked words", *_MASKED, "examples.pretrain_bert", "encoder", pretrained=False),
        Head("predict what was cut out of a text", *_PAIRS, "examples.pretrain_t5", "both", pretrained=False),
        Head("predict the next word", *_CAUSAL, None, "decoder", pretrained=False),
    ),
    "prompt-tune": (
        Head("answer a text", *_PAIRS, "examples.prompt_tune_t5", "both", prompt="SEQ_2_SEQ_LM"),
        Head("predict the next word", *_CAUSAL, None, "decoder", prompt="CAUSAL_LM"),
    ),
}
"""Tasks, and what each trains. The first head that a model can have counts."""


class Subject(NamedTuple):
    """A model and what is trained of it."""

    name: str
    """What the user called it."""
    checkpoint: str | None
    """What loads its weights: a name on the hub, or a folder."""
    shape: str | None
    """Its name in `MODELS`."""
    config: Any
    head: Head


def subject_of(model: str, task: str) -> Subject:
    """The configuration of a model, and the head that a task trains.

    **Arguments:**

    - `model`: a name of `MODELS`, a folder with `config.json`, or a name of the hub that is cached or can be reached.
    - `task`: one of `TASKS`.

    Raises `UsageError` for a model that is not there or cannot do the task.
    """
    checkpoint, shape, config = _found(model)
    head = _head_of(config, task)
    if head is None:
        others = [other for other in TASKS if _head_of(config, other)]
        fix = f"its tasks are {', '.join(others)}" if others else "name another model"
        abilities = " or ".join(head.text for head in TASKS[task])
        raise UsageError(f"{model} cannot {abilities}, as the task {task} wants; {fix}")
    return Subject(model, checkpoint, shape, config, head)


def _head_of(config: Any, task: str) -> Head | None:
    kind = _kind_of(config)
    return next((head for head in TASKS[task] if head.kind == kind and _is_in(config, head.models)), None)


def _kind_of(config: Any) -> Kind:
    if getattr(config, "is_encoder_decoder", False):
        return "both"
    # transformers lists encoders among the decoders too.
    return "encoder" if any(_is_in(config, models) for _, models in (_MASKED, _IMAGES)) else "decoder"


def _is_in(config: Any, models: str) -> bool:
    return type(config) in getattr(import_transformers(), models)


def import_transformers() -> Any:
    """The library, or the sentence that names the extra."""
    try:
        import transformers
    except ModuleNotFoundError as error:
        if error.name != "transformers":
            raise
        raise MissingExtraError("transformers", "recipes") from None
    return transformers


def _found(model: str) -> tuple[str | None, str | None, Any]:
    """What loads the weights of a model, its name in `MODELS`, and its configuration."""
    transformers = import_transformers()
    shape = next((name for name, each in MODELS.items() if model in (name, each.hub)), None)
    if shape is not None:
        hub, config, options = MODELS[shape]
        return hub, shape, getattr(transformers, config)(**options)
    folder = pathlib.Path(model).expanduser()
    if folder.exists() or model.startswith((".", "~", os.sep)):
        return str(folder), None, _config_in(folder)
    return model, None, _hub_config(model)


def _config_in(folder: pathlib.Path) -> Any:
    if not (folder / "config.json").is_file():
        raise UsageError(f"{folder} has no config.json; name the folder of a model that save_pretrained wrote")
    try:
        return import_transformers().AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise MnemoError(f"{folder / 'config.json'} describes no model of transformers: {_first(error)}") from None


def _hub_config(model: str) -> Any:
    load = import_transformers().AutoConfig.from_pretrained
    try:
        return load(model, trust_remote_code=False, local_files_only=not _is_hub_in_reach())
    except (OSError, ValueError, KeyError, TypeError) as error:
        names = [*MODELS, *(each.hub for each in MODELS.values() if each.hub)]
        near = difflib.get_close_matches(model, names, n=1, cutoff=0.6)
        hint = f"if you mean {near[0]}, write that, or " if near else ""
        raise UsageError(
            f"{model} is not known here, and the hub cannot be reached or has no such model; {hint}pass the folder of "
            f"its config.json, or one of {', '.join(MODELS)}"
        ) from error


def _is_hub_in_reach() -> bool:
    """Whether the hub has an address, so that no request is tried over and over where there is no network."""
    if os.environ.get("MNEMO_OFFLINE"):
        return False
    if urllib.request.getproxies():
        return True
    try:
        socket.getaddrinfo(
            urllib.parse.urlsplit(os.environ.get("HF_ENDPOINT", "https://huggingface.co")).hostname, None
        )
    except OSError:
        return False
    return True


def _first(error: BaseException) -> str:
    """The first sentence of an error."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].split(". ")[0].rstrip(".:")


def build(subject: Subject, *, virtual_tokens: int, checkpointing: bool) -> "torch.nn.Module":
    """The model as the task trains it, on torch's device meta: shapes without numbers.

    **Arguments:**

    - `subject`: the model and what is trained of it.
    - `virtual_tokens`: the length of a soft prompt.
    - `checkpointing`: whether activations of a block are computed again in the backward pass.
    """
    import torch

    with torch.device("meta"), warnings.catch_warnings():
        # peft 0.21 asks transformers 5.24 in words that it will remove.
        warnings.simplefilter("ignore", FutureWarning)
        network: Any = getattr(import_transformers(), subject.head.auto).from_config(subject.config)
        if checkpointing:
            _recompute(network)
        if subject.head.prompt is None:
            return network
        try:
            import peft
        except ModuleNotFoundError:
            raise MissingExtraError("peft", "recipes") from None
        config = peft.PromptTuningConfig(task_type=subject.head.prompt, num_virtual_tokens=virtual_tokens)
        return peft.get_peft_model(network, config)


def _recompute(network: Any) -> None:
    if not network.supports_gradient_checkpointing:
        raise UsageError(f"{type(network).__name__} cannot compute activations again; leave --checkpointing out")
    network.config.use_cache = False
    # transformers 5.24 has renamed it.
    enable = getattr(network, "activation_checkpointing_enable", network.gradient_checkpointing_enable)
    enable({"use_reentrant": False})
