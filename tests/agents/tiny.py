"""A random Llama of a few thousand parameters, its tokenizer, and PEFT adapters on it."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from agents.inference.adapters import write_manifest
from agents.inference.base import base_digest, template_digest

TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def tokenizer() -> PreTrainedTokenizerFast:
    """One token a byte, with the chat marks."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {"<|endoftext|>": 0, "<|im_start|>": 1, "<|im_end|>": 2}
    vocab |= {letter: number for number, letter in enumerate(alphabet, len(vocab))}
    inner = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    outer = PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token="<|im_start|>", eos_token="<|im_end|>", pad_token="<|endoftext|>"
    )
    outer.chat_template = TEMPLATE
    return outer


def make_base(folder: Path, seed: int = 0, **changes: int) -> Path:
    torch.manual_seed(seed)
    words = tokenizer()
    facts = {
        "vocab_size": 264,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
    }
    config = LlamaConfig(**(facts | changes), bos_token_id=1, eos_token_id=2, pad_token_id=0, tie_word_embeddings=True)
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(8)  # random, but not flat: greedy answers differ from prompt to prompt
    model.save_pretrained(folder)
    words.save_pretrained(folder)
    return folder


def make_adapter(
    folder: Path,
    base: Path,
    seed: int = 1,
    rank: int = 4,
    targets: list[str] | None = None,
    scale: float = 1.0,
    rslora: bool = False,
    **facts: object,
) -> str:
    """A random adapter whose B is not zero; returns its digest."""
    torch.manual_seed(seed)
    model = LlamaForCausalLM.from_pretrained(base)
    config = LoraConfig(
        r=rank, lora_alpha=2 * rank, target_modules=targets or ALL, use_rslora=rslora, task_type="CAUSAL_LM"
    )
    peft = get_peft_model(model, config)
    with torch.no_grad():
        for name, parameter in peft.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.3 * scale)
    peft.save_pretrained(folder)
    path = folder / "adapter_config.json"
    said = json.loads(path.read_text())
    path.write_text(json.dumps(said | {"base_model_name_or_path": "tiny"}))
    return write_manifest(
        folder, base_digest=base_digest(base), template_digest=template_digest(base), **({"brand": "acme"} | facts)
    )
