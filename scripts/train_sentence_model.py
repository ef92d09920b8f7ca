"""Trains the demo's sentence-embedding model from hand-written text, on one CPU core, in minutes.

    python scripts/train_sentence_model.py --out serving/cotenant_serving/demo_models/sentences --minutes 8 --seed 7

A small BERT learns, from pairs of texts that mean the same, to put each nearer to its partner than to all others of
its batch (multiple negatives ranking), with the first 32 and 64 of its 128 numbers alone as well (Matryoshka).
`--minutes` is counted in steps and not by the clock, so that the same seed gives the same weights on the same kind of
machine. The pairs of `sentence_pairs.yaml` are never seen; the last lines printed are the check.
"""

import itertools
import json
import random
import re
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import torch
from chat_text import read_text as read_chat_text
from sentence_check import report
from sentence_text import Pair, PairMaker, SentenceText, all_texts, batches, read_text
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from torch.nn.functional import cross_entropy, normalize
from training import begin, options, print_size
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

STEPS_PER_MINUTE = 500  # measured on one core of an AMD EPYC, alone on it
PAIRS_PER_BATCH = 128
VOCABULARY = 7000
ENDINGS = ("s", "es", "ed", "d", "ing", "er", "r", "ers", "rs", "ly", "n", "y")
LAYERS = 1
WIDTH = 128
CONTEXT_TOKENS = 128
DIMENSIONS = (128, 64, 32)
SCALE = 20.0
START_SCALE = 0.04
PEAK_LEARNING_RATE = 2e-3
WARM_UP_STEPS = 200
MIX = {("group", "fact", "swap"): 0.42, ("frame",): 0.08, ("field",): 0.45, ("answer",): 0.05}
PAD, UNKNOWN, CLS, SEP = "[PAD]", "[UNK]", "[CLS]", "[SEP]"
FOLDER = Path(__file__).parent


def make_tokenizer(text: SentenceText) -> PreTrainedTokenizerFast:
    """WordPiece in lower case, as BERT's, of whole words and endings: `gardens` is `garden` and `##s`."""
    backend = Tokenizer(models.WordPiece(vocab=vocabulary(all_texts(text)), unk_token=UNKNOWN))
    backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    ids = {token: backend.token_to_id(token) for token in (CLS, SEP)}
    backend.post_processor = processors.BertProcessing((SEP, ids[SEP]), (CLS, ids[CLS]))
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token=PAD,
        unk_token=UNKNOWN,
        cls_token=CLS,
        sep_token=SEP,
        model_max_length=CONTEXT_TOKENS,
    )


def vocabulary(texts: Iterable[str]) -> dict[str, int]:
    """Special tokens, single characters, endings, then words: the frequent ones first, without those that are another
    word and an ending."""
    counts = Counter(word for text in texts for word in re.findall(r"[a-z]+|[^\sa-z]", text.lower()))
    characters = [chr(code) for code in range(33, 127) if not chr(code).isupper()]
    pieces = [PAD, UNKNOWN, CLS, SEP, *characters, *(f"##{character}" for character in characters)]
    pieces += [f"##{ending}" for ending in ENDINGS]
    for word, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        stems = (word.removesuffix(ending) for ending in ENDINGS if word.endswith(ending))
        if len(word) > 1 and not any(len(stem) > 2 and stem in counts for stem in stems):
            pieces.append(word)
    return {piece: number for number, piece in enumerate(dict.fromkeys(pieces[:VOCABULARY]))}


def make_model(tokenizer: PreTrainedTokenizerFast) -> BertModel:
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        intermediate_size=256,
        max_position_embeddings=CONTEXT_TOKENS,
        type_vocab_size=1,
        pad_token_id=tokenizer.pad_token_id,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        dtype="float32",
    )
    config.is_matryoshka = True
    config.matryoshka_dimensions = sorted(DIMENSIONS)
    return BertModel(config, add_pooling_layer=False)


def start_from_subjects(model: BertModel, tokenizer: PreTrainedTokenizerFast, text: SentenceText) -> None:
    """Words begin near those of their subjects and those that say the same, instead of anywhere: each subject has a
    random direction, and a word the sum of its subjects'."""
    weights = model.get_input_embeddings().weight.data
    sets = [*text.fields.values(), *text.swaps]
    for words, direction in zip(sets, torch.randn(len(sets), WIDTH) * START_SCALE, strict=True):
        pieces = {piece for phrase in words for piece in tokenizer(phrase, add_special_tokens=False)["input_ids"]}
        whole = [piece for piece in pieces if not tokenizer.convert_ids_to_tokens(piece).startswith("##")]
        weights[whole] += direction


def embed(model: BertModel, tokenizer: PreTrainedTokenizerFast, texts: Sequence[str]) -> torch.Tensor:
    """(texts, WIDTH): the mean over each text's tokens, not normalised."""
    inputs = tokenizer(list(texts), padding=True, truncation=True, return_tensors="pt", return_token_type_ids=False)
    hidden = model(**inputs).last_hidden_state
    mask = inputs["attention_mask"].unsqueeze(-1)
    pooled: torch.Tensor = (hidden * mask).sum(1) / mask.sum(1)
    return pooled


def ranking_loss(left: torch.Tensor, right: torch.Tensor, pairs: Sequence[Pair]) -> torch.Tensor:
    """Cross entropy of finding each text's partner among all of the batch, both ways, for each of DIMENSIONS.

    Texts of the same meaning as the wanted one are left out of the others.
    """
    same = torch.tensor([[a.meaning == b.meaning for b in pairs] for a in pairs])
    left_out = same & ~torch.eye(len(pairs), dtype=torch.bool)
    wanted = torch.arange(len(pairs))
    losses = []
    for size in DIMENSIONS:
        scores = SCALE * normalize(left[:, :size], dim=-1) @ normalize(right[:, :size], dim=-1).T
        scores = scores.masked_fill(left_out, float("-inf"))
        losses += [cross_entropy(scores, wanted), cross_entropy(scores.T, wanted)]
    return torch.stack(losses).mean()


def learning_rate(step: int, steps: int) -> float:
    """Linear warm-up, then linearly to zero."""
    return PEAK_LEARNING_RATE * min(step / WARM_UP_STEPS, (steps - step) / max(1, steps - WARM_UP_STEPS))


def train(model: BertModel, tokenizer: PreTrainedTokenizerFast, stream: Iterator[list[Pair]], steps: int) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.98), weight_decay=0.05, fused=True)
    began, recent = time.monotonic(), 0.0
    model.train()
    for step, pairs in enumerate(itertools.islice(stream, steps), start=1):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, steps)
        left = embed(model, tokenizer, [pair.left for pair in pairs])
        right = embed(model, tokenizer, [pair.right for pair in pairs])
        loss = ranking_loss(left, right, pairs)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        recent = loss.item() if step == 1 else 0.98 * recent + 0.02 * loss.item()
        if step % 200 == 0 or step == steps:
            elapsed_s = time.monotonic() - began
            eta_s = elapsed_s / step * (steps - step)
            print(f"step {step}/{steps}  loss {recent:.4f}  elapsed {elapsed_s:.0f} s  ETA {eta_s:.0f} s", flush=True)


def save(model: BertModel, tokenizer: PreTrainedTokenizerFast, out: Path) -> None:
    """In the layout of sentence-transformers: the model, then mean pooling, then length 1."""
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    names = {
        "0": ("", "models.Transformer"),
        "1": ("1_Pooling", "models.Pooling"),
        "2": ("2_Normalize", "models.Normalize"),
    }
    modules = [
        {"idx": int(number), "name": number, "path": path, "type": f"sentence_transformers.{kind}"}
        for number, (path, kind) in names.items()
    ]
    write_json(out / "modules.json", modules)
    write_json(out / "sentence_bert_config.json", {"max_seq_length": CONTEXT_TOKENS, "do_lower_case": False})
    write_json(out / "config_sentence_transformers.json", {"prompts": {}, "similarity_fn_name": "cosine"})
    (out / "1_Pooling").mkdir(exist_ok=True)
    pooling = {"word_embedding_dimension": WIDTH, "pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}
    write_json(out / "1_Pooling" / "config.json", pooling)
    print_size(model, out)


def write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    arguments = options(__doc__ or "", STEPS_PER_MINUTE)
    begin(arguments.seed, threads=1)
    facts = read_chat_text(FOLDER / "chat_training_text.yaml").facts
    text = read_text(FOLDER / "sentence_training_text.yaml", facts)
    tokenizer = make_tokenizer(text)
    model = make_model(tokenizer)
    start_from_subjects(model, tokenizer, text)
    print(f"{len(text.groups)} groups, {len(facts)} facts, {len(tokenizer)} tokens", flush=True)
    rng = random.Random(arguments.seed)
    stream = batches(PairMaker(text, rng), MIX, PAIRS_PER_BATCH, rng)
    train(model, tokenizer, stream, int(arguments.minutes * STEPS_PER_MINUTE))
    save(model, tokenizer, arguments.out)
    report(arguments.out, show=False)


if __name__ == "__main__":
    main()
