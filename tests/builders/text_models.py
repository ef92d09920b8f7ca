"""Tiny random models over texts, in Hugging Face format, and transformers' own answers of them."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

LETTERS = "abcdefghijklmnopqrstuvwxyz"
HIDDEN = 32
POISON = "poison"
"""A text with this word makes a poisoned model answer NaN."""


def bert_tokenizer() -> Any:
    """WordPiece of single letters, so that a word has as many tokens as letters; `poison` is one token."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *LETTERS, *(f"##{letter}" for letter in LETTERS), POISON, "A"]
    tokenizer = Tokenizer(models.WordPiece({name: at for at, name in enumerate(names)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )


def roberta_tokenizer() -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    names = ["<s>", "<pad>", "</s>", "<unk>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = Tokenizer(models.BPE({name: at for at, name in enumerate(names)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>", cls_token="<s>", sep_token="</s>"
    )


def make_bert(folder: Path, head: str = "BertModel", *, poisoned: bool = False, **config: Any) -> Path:
    """2 layers, hidden 32, 64 positions. `head` is a class of transformers."""
    import torch
    import transformers

    tokenizer = bert_tokenizer()
    torch.manual_seed(1)
    sizes = {"hidden_size": HIDDEN, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    made = transformers.BertConfig(
        vocab_size=len(tokenizer), max_position_embeddings=64, initializer_range=0.3, **sizes, **config
    )
    model = getattr(transformers, head)(made).eval()
    if poisoned:
        at = tokenizer.convert_tokens_to_ids(POISON)
        model.get_input_embeddings().weight.data[at] = float("nan")
    return _save(folder, model, tokenizer)


def make_roberta(folder: Path, head: str = "RobertaModel", **config: Any) -> Path:
    """As `make_bert`, a token for each byte. Of its 66 positions the first two are never used."""
    import torch
    import transformers

    tokenizer = roberta_tokenizer()
    torch.manual_seed(2)
    sizes = {"hidden_size": HIDDEN, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    made = transformers.RobertaConfig(
        vocab_size=len(tokenizer),
        max_position_embeddings=66,
        pad_token_id=1,
        type_vocab_size=1,
        initializer_range=0.3,
        **sizes,
        **config,
    )
    return _save(folder, getattr(transformers, head)(made).eval(), tokenizer)


def make_llama_classifier(folder: Path, *, pad: bool, num_labels: int = 3) -> Path:
    """A decoder with a class for each text, by its last token. Without `pad` it knows no padding token."""
    import torch
    import transformers

    tokenizer = roberta_tokenizer()
    if not pad:
        tokenizer.pad_token = None
    torch.manual_seed(4)
    made = transformers.LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=HIDDEN,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        pad_token_id=tokenizer.pad_token_id,
        num_labels=num_labels,
        initializer_range=0.3,
    )
    return _save(folder, transformers.LlamaForSequenceClassification(made).eval(), tokenizer)


def _save(folder: Path, model: Any, tokenizer: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder, safe_serialization=True)
    tokenizer.save_pretrained(folder)
    return folder


def write_sentence_files(
    folder: Path,
    pooling: dict[str, Any],
    *,
    dense: tuple[int, int] | None = None,
    normalize: bool = False,
    length: dict[str, Any] | None = None,
    prompts: dict[str, Any] | None = None,
) -> None:
    """The files of sentence-transformers around a model: pooling, a random linear layer with tanh, normalisation."""
    modules = [_module(0, "", "Transformer"), _module(1, "1_Pooling", "Pooling")]
    write_json(folder / "1_Pooling" / "config.json", {"word_embedding_dimension": HIDDEN, **pooling})
    if dense:
        modules.append(_module(2, "2_Dense", "Dense"))
        _write_dense(folder / "2_Dense", *dense)
    if normalize:
        modules.append(_module(len(modules), "3_Normalize", "Normalize"))
    write_json(folder / "modules.json", modules)
    if length:
        write_json(folder / "sentence_bert_config.json", length)
    if prompts:
        write_json(folder / "config_sentence_transformers.json", prompts)


def _module(index: int, path: str, kind: str) -> dict[str, Any]:
    return {"idx": index, "name": str(index), "path": path, "type": f"sentence_transformers.models.{kind}"}


def _write_dense(folder: Path, in_features: int, out_features: int) -> None:
    import torch
    from safetensors.torch import save_file

    described = {"in_features": in_features, "out_features": out_features, "bias": True}
    write_json(folder / "config.json", described | {"activation_function": "torch.nn.modules.activation.Tanh"})
    torch.manual_seed(3)
    tensors = {"linear.weight": torch.randn(out_features, in_features) / 8, "linear.bias": torch.randn(out_features)}
    save_file(tensors, folder / "model.safetensors")


def write_json(file: Path, value: Any) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(value))


class Direct:
    """transformers run directly: one text at a time, without padding, eagerly."""

    def __init__(self, folder: Path, auto_class: str = "AutoModel") -> None:
        import transformers

        self.tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        cls = getattr(transformers, auto_class)
        self.model = cls.from_pretrained(folder, attn_implementation="eager").eval()

    def hidden(self, text: str | Sequence[int]) -> Any:
        """(tokens, hidden) of the last layer."""
        import torch

        with torch.no_grad():
            return self.model(**self._encoded(text)).last_hidden_state[0]

    def logits(self, *texts: str) -> Any:
        import torch

        with torch.no_grad():
            return self.model(**self.tokenizer(*texts, return_tensors="pt")).logits[0]

    def tokens(self, *texts: str) -> int:
        return len(self.tokenizer(*texts)["input_ids"])

    def _encoded(self, text: str | Sequence[int]) -> Any:
        import torch

        if isinstance(text, str):
            return self.tokenizer(text, return_tensors="pt")
        return {"input_ids": torch.tensor([list(text)]), "attention_mask": torch.ones(1, len(text), dtype=torch.long)}
