"""Trains the demo's chat model from `chat_training_text.yaml`, on two CPU cores, in minutes.

    python scripts/train_chat_model.py --out serving/cotenant_serving/demo_models/chat --minutes 8 --seed 7

The text is turned into conversations (a question in varied wording, at times a system message and earlier turns),
and a small Llama learns the answers; questions carry no loss. `--minutes` is counted in steps, at `STEPS_PER_MINUTE`
and not by the clock, so that the same seed gives the same weights on the same kind of machine. Questions marked
`held_out` are never seen; the last page printed is the check.
"""

import argparse
import itertools
import random
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import yaml
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch.nn.functional import cross_entropy
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)
from transformers.utils.logging import disable_progress_bar

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

# Wording that does not change what is asked: a pattern and what may stand in its place.
REWORDINGS = [
    (r"\bWhat is\b", ["What's", "what is", "Whats", "What exactly is"]),
    (
        r"\b[Hh]ow do I\b",
        ["how can I", "how to", "how should I", "how would I", "what is the way to", "how could I", "how do you"],
    ),
    (r"\bHow does\b", ["how does", "In what way does", "how exactly does", "how would"]),
    (r"\bWhich\b", ["What", "what", "which"]),
    (r"\bWhat happens (if|when)\b", ["What if", "what will happen if", "What does cotenant do when", "and if"]),
    (r"\bCan I\b", ["Could I", "May I", "Is it possible to", "Am I able to", "Can we", "can you"]),
    (r"\bmy\b", ["a", "our", "the"]),
    (r"\bDoes cotenant\b", ["Does it", "Will cotenant", "does cotenant", "Can cotenant"]),
    (r"\bcotenant\b", ["Cotenant", "cotenant", "it", "the system"]),
    (r"\bsupport(ed)?\b", ["offer", "have", "handle", "possible"]),
    (r"\brun\b", ["start", "launch", "execute", "serve"]),
    (r"\bsee\b", ["find", "look at", "check", "view"]),
    (r"\bWhy do(es)?\b", ["What is the reason that", "how come", "why would", "For what reason does"]),
    (r"\bneed\b", ["require", "want", "have to have"]),
    (r"\bmodel\b", ["model", "LLM", "deployment"]),
    (r"\bGPU\b", ["gpu", "graphics card", "card", "device"]),
    (r"\bIs there\b", ["Do you have", "Does cotenant have", "is there", "Do you ship"]),
    (r"\bdo not\b", ["don't", "dont"]),
]
# fmt: off
OPENINGS = [
    "Hi, ", "Hello, ", "Hi! ", "Please tell me, ", "Tell me: ", "Can you tell me ", "Could you tell me ",
    "I want to know ", "So ", "Ok, ", "And ", "Quick question: ", "Could you explain ", "Do you know ", "Sorry, ",
    "Hey, ", "I wonder, ",
]
CLOSINGS = [
    " please", " Thanks!", " in cotenant", " with cotenant", " exactly", " then", " here", " today", " in short",
]
FUNCTION_WORDS = frozenset([
    "a", "an", "the", "of", "to", "do", "does", "is", "are", "it", "my", "me", "in", "on", "for", "with", "and",
    "there", "that", "this", "be", "can", "will", "so",
])
# fmt: on

Message = dict[str, str]


@dataclass(frozen=True)
class Fact:
    """One answer and the questions that ask for it; `more` and `example` answer a follow-up."""

    name: str
    questions: list[str]
    held_out: list[str]
    answer: str
    more: str
    example: str
    weight: float = 1.0
    refuses: bool = False


@dataclass(frozen=True)
class TrainingText:
    facts: list[Fact]
    follow_ups: dict[str, list[str]]
    systems: list[str]
    first_question_variants: list[str]
    first_fact: Fact
    unclear: Fact
    no_more: str
    fresh: dict[str, str]  # a question for some facts, by their name


@dataclass(frozen=True)
class Check:
    """One question with the answer that is wanted and the one that came."""

    name: str
    messages: list[Message]
    wanted: str
    given: str = ""

    @property
    def passed(self) -> bool:
        return self.given == self.wanted


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


def lines(block: str | None) -> list[str]:
    return [line.strip() for line in (block or "").splitlines() if line.strip()]


def read_text(path: Path) -> TrainingText:
    document = yaml.safe_load(path.read_text(encoding="utf-8"))
    templates = lines(document["templates"]["about"])
    no_more = document["follow_ups"]["no_more"]
    facts = [fact for section in document["sections"] for fact in section_facts(section, templates, no_more)]
    refusals = [refusal_fact(entry, no_more, facts[-1].example) for entry in document["refusals"]]
    by_name = {fact.name: fact for fact in facts + refusals}
    return TrainingText(
        facts=facts + refusals,
        follow_ups={name: lines(block) for name, block in document["follow_ups"].items()},
        systems=lines(document["systems"]),
        first_question_variants=lines(document["first_question"]["variants"]),
        first_fact=by_name[document["first_question"]["fact"]],
        unclear=by_name["unclear"],
        no_more=no_more,
        fresh=document["fresh"],
    )


def section_facts(section: dict[str, Any], templates: list[str], no_more: str) -> list[Fact]:
    """One fact per entry. `more` is the next one's answer; after the last, and in small talk, there is none."""
    entries = section["facts"]
    following = [no_more if section.get("small_talk") else entry["answer"] for entry in entries[1:]] + [no_more]
    facts = []
    for entry, more in zip(entries, following, strict=True):
        about = [template.format(x=phrase) for phrase in lines(entry.get("about")) for template in templates]
        asked, held_out = lines(entry["ask"]), lines(entry["held_out"])
        questions = [question for question in asked * 2 + about if question not in held_out]
        weight = 4.0 if entry["id"] == "what-is-cotenant" else 1.0
        facts.append(Fact(entry["id"], questions, held_out, entry["answer"], more, section["example"], weight))
    return facts


def refusal_fact(entry: dict[str, Any], no_more: str, example: str) -> Fact:
    """Fills the templates with a fixed sample of their words; kinds with more questions come up more often."""
    rng = random.Random(entry["id"])
    words = {
        name: [word.strip() for word in str(block).replace('"', "").split(",")]
        for name, block in entry.get("fill", {}).items()
    }
    filled = []
    for template in lines(entry.get("templates")):
        for _ in range(24):
            filled.append(re.sub(r"{(\w+)}", lambda match: rng.choice(words[match[1]]), template))
        if "{n}" not in template and "{prog}" not in template:
            filled += [re.sub(r"{\w+}", lambda _: invented_word(rng), template) for _ in range(12)]
    held_out = lines(entry["held_out"])
    asked = lines(entry["ask"])
    repeats = max(1, len(set(filled)) // len(asked))
    questions = [question for question in asked * repeats + sorted(set(filled)) if question not in held_out]
    return Fact(
        entry["id"], questions, held_out, entry["answer"], no_more, example, weight=1.0 + len(asked) / 6, refuses=True
    )


def invented_word(rng: random.Random) -> str:
    """A word that nobody knows, so that an unknown name in a question leads to a refusal and not to a guess."""
    syllables = ["".join(rng.choice(part) for part in ("bdfghklmnprstvwz", "aeiou", "nrlst")) for _ in range(2)]
    word = "".join(syllables) + rng.choice(["", "a", "o", "ia", "s", "en"])
    return rng.choice([word, word.capitalize()])


def vary(question: str, rng: random.Random) -> str:
    """The same question as another person would type it."""
    for pattern, alternatives in rng.sample(REWORDINGS, len(REWORDINGS)):
        if rng.random() < 0.2:
            question = re.sub(pattern, rng.choice(alternatives), question, count=1)
    if rng.random() < 0.5:
        question = with_fewer_words(question, rng)
    if rng.random() < 0.2:
        question = rng.choice(OPENINGS) + question[:1].lower() + question[1:]
    if rng.random() < 0.08:
        question = question.rstrip("?.!") + rng.choice(CLOSINGS) + question[len(question.rstrip("?.!")) :]
    if rng.random() < 0.2:
        question = question.rstrip("?.!") or question
    if rng.random() < 0.08:
        question = with_typing_error(question, rng)
    return question.lower() if rng.random() < 0.15 else question


def with_fewer_words(question: str, rng: random.Random) -> str:
    """Drops words, the telling ones seldom, and at times mixes up their order: no one word may decide the answer."""
    words = question.split()
    kept = [word for word in words if rng.random() > (0.3 if word.lower() in FUNCTION_WORDS else 0.1)]
    if rng.random() < 0.25:
        rng.shuffle(kept)
    return " ".join(kept) or question


def with_typing_error(question: str, rng: random.Random) -> str:
    position = rng.randrange(max(1, len(question) - 1))
    swapped = question[position + 1 : position + 2] + question[position]
    return question[:position] + rng.choice([swapped, question[position], ""]) + question[position + 2 :]


def turn(question: str, answer: str) -> list[Message]:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def converse(text: TrainingText, rng: random.Random) -> list[Message]:
    """One conversation, half of them of one turn; a follow-up depends only on the answer before it."""
    messages = [{"role": "system", "content": rng.choice(text.systems)}] if rng.random() < 0.25 else []
    weights = [fact.weight for fact in text.facts]
    fact: Fact | None = None
    for _ in range(rng.choice([1, 1, 1, 1, 2, 2, 3, 4])):
        kind = rng.choice(["more", "example"])
        asks_on = rng.random() < (0.4 if messages and messages[-1]["role"] == "assistant" else 0.01)
        if asks_on:
            first = not any(message["role"] == "assistant" for message in messages)
            answer = text.unclear.answer if first else text.no_more if fact is None else getattr(fact, kind)
            messages += turn(vary(rng.choice(text.follow_ups[kind]), rng), answer)
            fact = fact if fact and kind == "more" and answer != text.no_more else None
            fact = next((other for other in text.facts if other.answer == answer), None) if fact else None
        else:
            fact = rng.choices(text.facts, weights)[0]
            messages += turn(vary(rng.choice(fact.questions), rng), fact.answer)
    return messages


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
    size = sum(file.stat().st_size for file in out.iterdir() if file.is_file())
    print(f"saved {sum(p.numel() for p in model.parameters()):,} parameters to {out}, {size / 1e6:.2f} MB in all")


def held_out_checks(text: TrainingText) -> dict[str, list[Check]]:
    """What is never trained on, by kind."""
    refusals = [fact for fact in text.facts if fact.refuses]
    facts = [fact for fact in text.facts if not fact.refuses]
    return {
        "first question": asked_once(text.first_fact, text.first_question_variants),
        "facts": [check for fact in facts for check in asked_once(fact, fact.held_out)],
        "out of scope": [check for fact in refusals for check in asked_once(fact, fact.held_out)],
        "fresh": [
            check
            for fact in text.facts
            if fact.name in text.fresh
            for check in asked_once(fact, [text.fresh[fact.name]])
        ],
        "say more": asked_on(text, "more"),
        "an example": asked_on(text, "example"),
    }


def asked_once(fact: Fact, questions: list[str]) -> list[Check]:
    return [Check(fact.name, [{"role": "user", "content": question}], fact.answer) for question in questions]


def asked_on(text: TrainingText, kind: str) -> list[Check]:
    """Follow-ups in held-out wording, each after a trained question."""
    openings = [fact for fact in text.facts if fact.more != text.no_more][::6]
    questions = itertools.cycle(text.follow_ups[f"{kind}_held_out"])
    checks = []
    for fact, question in zip(openings, questions, strict=False):
        messages = [*turn(fact.questions[0], fact.answer), {"role": "user", "content": question}]
        checks.append(Check(fact.name, messages, getattr(fact, kind)))
    return checks


@torch.inference_mode()
def answered(checks: list[Check], model: Any, tokenizer: Any, temperature: float) -> list[Check]:
    sampling = (
        {"do_sample": True, "temperature": temperature, "top_p": 1.0, "top_k": 0}
        if temperature
        else {"do_sample": False}
    )
    done: list[Check] = []
    for start in range(0, len(checks), 24):
        part = checks[start : start + 24]
        rendered = [
            tokenizer.apply_chat_template(check.messages, tokenize=False, add_generation_prompt=True)
            for check in part
        ]
        inputs = tokenizer(
            rendered, return_tensors="pt", padding=True, add_special_tokens=False, return_token_type_ids=False
        )
        output = model.generate(**inputs, max_new_tokens=128, **sampling)
        given = tokenizer.batch_decode(output[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        done += [
            Check(check.name, check.messages, check.wanted, text) for check, text in zip(part, given, strict=True)
        ]
    return done


def report(text: TrainingText, out: Path) -> None:
    """Loads what was saved, as a user would, and prints greedy answers to the held-out questions and the verdict."""
    model, tokenizer = AutoModelForCausalLM.from_pretrained(out), AutoTokenizer.from_pretrained(out)
    model.eval()
    summary = []
    for kind, checks in held_out_checks(text).items():
        greedy = answered(checks, model, tokenizer, temperature=0)
        warm = answered(checks, model, tokenizer, temperature=0.7)
        for check in greedy:
            verdict = "ok   " if check.passed else "WRONG"
            print(f"{verdict} [{check.name}] {check.messages[-1]['content']}\n      {check.given}")
        passed, passed_warm = sum(c.passed for c in greedy), sum(c.passed for c in warm)
        summary.append(f"{kind}: greedy {passed}/{len(checks)}, temperature 0.7 {passed_warm}/{len(checks)}")
    print("\nheld out, answered word for word as wanted\n" + "\n".join(summary))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder to write the model to")
    parser.add_argument(
        "--minutes", type=float, default=8.0, help=f"length of the training, at {STEPS_PER_MINUTE} steps a minute"
    )
    parser.add_argument("--seed", type=int, default=7)
    arguments = parser.parse_args()
    disable_progress_bar()
    torch.set_num_threads(2)
    torch.manual_seed(arguments.seed)
    torch.use_deterministic_algorithms(True)
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
