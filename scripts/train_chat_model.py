"""Trains the demo's chat model from `chat_training_text.yaml`, on two CPU cores, in minutes.

    python scripts/train_chat_model.py --out serving/cotenant_serving/demo_models/chat --minutes 8 --seed 7

The text is turned into conversations (a question in varied wording, at times a system message and earlier turns),
and a small Llama learns the answers; questions carry no loss. `--minutes` is counted in steps, at `STEPS_PER_MINUTE`
and not by the clock, so that the same seed gives the same weights on the same kind of machine. Questions marked
`held_out` are never seen; the last page printed is the check.
"""

import itertools
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
from chat_check import report
from chat_text import Message, TrainingText, converse, read_text, turn, vary
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch.nn.functional import cross_entropy
from training import begin, options, print_size
from transformers import (
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

STEPS_PER_MINUTE = 180  # measured on two cores of an AMD EPYC, alone on the machine
TOKENS_PER_BATCH = 1536
ANSWER_START_TOKENS = 8
VOCABULARY = 2048
CONTEXT_TOKENS = 512
PEAK_LEARNING_RATE = 2e-3
WARM_UP_STEPS = 60
PAD, BOS, EOS = "<|pad|>", "<|im_start|>", "<|im_end|>"
TEXT_FILE = Path(__file__).with_name("chat_training_text.yaml")

CHAT_TEMPLATE = """\
{%- for message in messages %}
{%- if message['content'] is string %}
{%- set text = message['content'] %}
{%- else %}
{%- set text = message['content'] | selectattr('type', 'equalto', 'text') | map(attribute='text') | join('\\n') %}
{%- endif %}
{{- '<|im_start|>' + message['role'] + '\\n' + text | trim + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""


@dataclass
class Progress:
    steps: int
    started_s: float = field(default_factory=time.monotonic)
    tokens: int = 0

    def line(self, step: int, loss: float) -> str:
        elapsed_s = time.monotonic() - self.started_s
        eta_s = elapsed_s / step * (self.steps - step)
        rate = self.tokens / elapsed_s
        done = f"step {step}/{self.steps}  loss {loss:.4f}  {rate:,.0f} tokens/s"
        return f"{done}  elapsed {elapsed_s:.0f} s  ETA {eta_s:.0f} s"


def train_tokenizer(text: TrainingText, seed: int) -> PreTrainedTokenizerFast:
    """Byte-level BPE: any Unicode text has tokens, and decoding gives back exactly what was encoded."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[PAD, BOS, EOS],
        initial_alphabet=alphabet,
        min_frequency=2,
        show_progress=False,
    )
    rng = random.Random(seed)
    conversations = (converse(text, rng) for _ in range(4000))
    backend.train_from_iterator((f"{m['role']}\n{m['content']}" for c in conversations for m in c), trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=EOS,
        model_max_length=CONTEXT_TOKENS,
        clean_up_tokenization_spaces=False,
        padding_side="left",
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


@dataclass(frozen=True)
class Example:
    tokens: list[int]
    learned: list[bool]  # whether the model has to predict this token


def encode(messages: list[Message], tokenizer: PreTrainedTokenizerFast, opening: list[int]) -> Example:
    """Learned are the tokens from after `<|im_start|>assistant\\n` up to and with the end of turn."""
    rendered = str(tokenizer.apply_chat_template(messages, tokenize=False))
    tokens = tokenizer.encode(rendered, add_special_tokens=False)[:CONTEXT_TOKENS]
    learned, answering = [], False
    for position, token in enumerate(tokens):
        learned.append(answering)
        if answering:
            answering = token != tokenizer.eos_token_id
        elif tokens[max(0, position + 1 - len(opening)) : position + 1] == opening:
            answering = True
    return Example(tokens, learned)


def start_of(example: Example) -> Example:
    end = example.learned.index(True) + ANSWER_START_TOKENS
    return Example(example.tokens[:end], example.learned[:end])


def encode_plain(answer: str, tokenizer: PreTrainedTokenizerFast) -> Example:
    """An answer without its question, so that a plain completion has something to go on."""
    tokens = tokenizer.encode(answer + EOS, add_special_tokens=False)
    return Example(tokens, [False] + [True] * (len(tokens) - 1))


def examples(text: TrainingText, tokenizer: PreTrainedTokenizerFast, rng: random.Random) -> Iterator[Example]:
    """Mostly questions with only the start of their answer, where it is decided which answer it is: the hard part.

    The rest are whole conversations, and a few answers alone.
    """
    opening = tokenizer.encode(f"{BOS}assistant\n", add_special_tokens=False)
    weights = [fact.weight for fact in text.facts]
    while True:
        kind = rng.random()
        if kind < 0.02:
            yield encode_plain(rng.choice(text.facts).answer, tokenizer)
        elif kind < 0.25:
            yield encode(converse(text, rng), tokenizer, opening)
        else:
            fact = rng.choices(text.facts, weights)[0]
            question = turn(vary(rng.choice(fact.questions), rng), fact.answer)
            yield start_of(encode(question, tokenizer, opening))


def batches(stream: Iterator[Example], rng: random.Random) -> Iterator[list[Example]]:
    """Groups examples of like length, about `TOKENS_PER_BATCH` at a time, so that little is spent on padding."""
    while True:
        pool = sorted(itertools.islice(stream, 640), key=lambda example: len(example.tokens))
        grouped: list[list[Example]] = [[]]
        for example in pool:
            if grouped[-1] and (len(grouped[-1]) + 1) * len(example.tokens) > TOKENS_PER_BATCH:
                grouped.append([])
            grouped[-1].append(example)
        rng.shuffle(grouped)
        yield from grouped


def tensors(batch: list[Example], pad_id: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and the learned mask, both (batch, longest), padded on the right."""
    longest = max(len(example.tokens) for example in batch)
    ids = [example.tokens + [pad_id] * (longest - len(example.tokens)) for example in batch]
    learned = [example.learned + [False] * (longest - len(example.learned)) for example in batch]
    return torch.tensor(ids), torch.tensor(learned)


def make_model(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=256,
        intermediate_size=512,
        num_hidden_layers=3,
        num_attention_heads=8,
        num_key_value_heads=4,
        max_position_embeddings=CONTEXT_TOKENS,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        dtype="float32",
    )
    return LlamaForCausalLM(config)


def answer_loss(model: LlamaForCausalLM, ids: torch.Tensor, learned: torch.Tensor) -> torch.Tensor:
    """Mean cross entropy over the learned tokens; only their logits are computed.

    Right padding needs no attention mask: attention is causal.
    """
    hidden = model.model(input_ids=ids[:, :-1]).last_hidden_state
    wanted = learned[:, 1:]
    return cross_entropy(model.lm_head(hidden[wanted]), ids[:, 1:][wanted])


def learning_rate(step: int, steps: int) -> float:
    """Linear warm-up, then linearly to zero."""
    return PEAK_LEARNING_RATE * min(step / WARM_UP_STEPS, (steps - step) / max(1, steps - WARM_UP_STEPS))


def train(model: LlamaForCausalLM, stream: Iterator[list[Example]], steps: int, pad_id: int) -> None:
    decayed = [parameter for parameter in model.parameters() if parameter.ndim > 1]
    others = [parameter for parameter in model.parameters() if parameter.ndim < 2]
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.98), fused=True)
    progress, recent = Progress(steps), 0.0
    model.train()
    for step, batch in enumerate(itertools.islice(stream, steps), start=1):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, steps)
        ids, learned = tensors(batch, pad_id)
        loss = answer_loss(model, ids, learned)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        progress.tokens += ids.numel()
        recent = loss.item() if step == 1 else 0.95 * recent + 0.05 * loss.item()
        if step % 50 == 0 or step == steps:
            print(progress.line(step, recent), flush=True)


def save(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, out: Path) -> None:
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        max_new_tokens=128,
    )
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    print_size(model, out)


def main() -> None:
    arguments = options(__doc__ or "", STEPS_PER_MINUTE)
    begin(arguments.seed, threads=2)
    text = read_text(TEXT_FILE)
    tokenizer = train_tokenizer(text, arguments.seed)
    model = make_model(tokenizer)
    rng = random.Random(arguments.seed)
    stream = batches(examples(text, tokenizer, rng), rng)
    num_questions = sum(len(set(fact.questions)) for fact in text.facts)
    print(f"{len(text.facts)} answers, {num_questions} questions, {len(tokenizer)} tokens", flush=True)
    train(model, stream, int(arguments.minutes * STEPS_PER_MINUTE), tokenizer.pad_token_id)
    save(model, tokenizer, arguments.out)
    report(text, arguments.out)


if __name__ == "__main__":
    main()
