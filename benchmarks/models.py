"""Models made at run time, in Hugging Face's format: real shapes and sizes, random weights from a seed."""

import json
import random
import time
from pathlib import Path
from typing import Any

VOCABULARY = 16384
SPACE = "Ġ"
"""How byte-level tokenizers write a space."""


def fastest_dtype(width: int = 1024, rows: int = 32, repeats: int = 30) -> Any:
    """torch.float32 or torch.bfloat16, whichever multiplies `rows` activations faster here."""
    import torch

    def seconds(dtype: Any) -> float:
        weight, rows_in = torch.randn(4 * width, width, dtype=dtype), torch.randn(rows, width, dtype=dtype)
        best = float("inf")
        for _ in range(repeats):
            began = time.perf_counter()
            torch.nn.functional.linear(rows_in, weight)
            best = min(best, time.perf_counter() - began)
        return best

    return min((torch.float32, torch.bfloat16), key=seconds)


def make_llama(folder: Path, dtype: Any, seed: int = 0) -> int:
    """A Llama with random weights and a tokenizer of which every token has text. Returns its parameters."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=896,
        intermediate_size=2432,
        num_hidden_layers=16,
        num_attention_heads=14,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
    )
    model = LlamaForCausalLM(config).to(dtype).eval()
    model.generation_config.eos_token_id = None
    folder.mkdir(parents=True)
    model.save_pretrained(folder)
    random_tokenizer(seed).save_pretrained(folder)
    return sum(parameter.numel() for parameter in model.parameters())


def make_sentence_model(folder: Path, seed: int = 0) -> int:
    """An encoder of the shape of all-MiniLM-L6: mean pooling, vectors of length 1. Returns its parameters."""
    import torch
    from transformers import BertConfig, BertModel

    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=384,
        intermediate_size=1536,
        num_hidden_layers=6,
        num_attention_heads=12,
        max_position_embeddings=512,
        initializer_range=0.1,
    )
    model = BertModel(config, add_pooling_layer=False).eval()
    folder.mkdir(parents=True)
    model.save_pretrained(folder)
    tokenizer = random_tokenizer(seed)
    tokenizer.pad_token = tokenizer.convert_ids_to_tokens(0)
    tokenizer.save_pretrained(folder)
    kinds = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")]
    modules = [{"path": path, "type": f"sentence_transformers.models.{kind}"} for path, kind in kinds]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_mean_tokens": True}))
    return sum(parameter.numel() for parameter in model.parameters())


def random_tokenizer(seed: int) -> Any:
    """Byte-level BPE of VOCABULARY tokens: single bytes, words of random letters, half of them after a space."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    rng = random.Random(seed)
    vocabulary = {character: index for index, character in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    merges: list[tuple[str, str]] = []
    # Words with the space before them come first: so " abc" in a text is one token.
    for first, size in ([SPACE], VOCABULARY // 2), (letters, VOCABULARY):
        pieces = list(first)
        while len(vocabulary) < size:
            left, right = rng.choice(pieces), rng.choice(letters)
            if len(left) < 6 and left + right not in vocabulary:
                vocabulary[left + right] = len(vocabulary)
                merges.append((left, right))
                pieces.append(left + right)
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)
