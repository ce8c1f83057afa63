"""A random Llama of two layers with a real tokenizer: seconds to make, legal for 4-bit kernels.

For form and arithmetic only; where quality is judged, `tiny_model` is the trained one.
"""

import json
from pathlib import Path
from typing import Any

CORPUS = [
    "The merge adds the delta of the adapter to the weights of the base model.",
    "def main():\n    print('hello')\n    return 0\n",
    "Quantization maps each group of weights to sixteen levels with one scale.",
    "select name, count(*) from orders group by name order by 2 desc;",
]
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<|{{ message.role }}|>\n"
    "{{ message.content }}</s>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
HIDDEN, INTERMEDIATE, LAYERS = 128, 256, 2


def byte_tokenizer(*, adds_bos: bool = True, trims: bool = False) -> Any:
    """A byte-level BPE tokenizer like those of Llama 3: BOS first, template in it."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    steps: list[Any] = [processors.ByteLevel(trim_offsets=trims)]
    if adds_bos:
        steps.append(processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)]))
    tokenizer.post_processor = processors.Sequence(steps)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        chat_template=CHAT_TEMPLATE,
    )


def write_llama(
    folder: Path, *, seed: int = 0, intermediate: int = INTERMEDIATE, layers: int = LAYERS
) -> Path:
    """A random bf16 model with tokenizer, chat template and generation config."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    config = LlamaConfig(
        hidden_size=HIDDEN,
        intermediate_size=intermediate,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=320,
        max_position_embeddings=256,
        bos_token_id=0,
        eos_token_id=1,
        initializer_range=0.15,
    )
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return folder


def write_lora(base: Path, folder: Path, *, seed: int = 1) -> Path:
    """A random LoRA of rank 4 whose effect is far above bf16's rounding."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    config = LoraConfig(
        r=4,
        lora_alpha=8,
        target_modules=["q_proj", "v_proj", "up_proj", "down_proj"],
        init_lora_weights=False,
        task_type="CAUSAL_LM",
    )
    adapted = get_peft_model(model, config)
    adapted.save_pretrained(folder)
    return folder


def write_merged(base: Path, adapter: Path, folder: Path) -> Path:
    """Base and adapter merged by PEFT in fp32, stored in bf16, with the base's companions."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    merged = PeftModel.from_pretrained(model, adapter).merge_and_unload()
    merged.to(torch.bfloat16).save_pretrained(folder)
    AutoTokenizer.from_pretrained(base).save_pretrained(folder)
    return folder


def write_texts(file: Path, *texts: str) -> Path:
    """A data set of plain texts, one JSON line each."""
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return file


def sentences(count: int, start: int = 0) -> list[str]:
    """Texts that all differ, some longer than others."""
    return [
        f"Record {i}: {CORPUS[i % len(CORPUS)]} " + "and again " * (i % 7)
        for i in range(start, start + count)
    ]
