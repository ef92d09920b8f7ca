"""`chat_training_text.yaml` → facts, and facts → conversations in varied wording, for the demo's chat model."""

import random
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

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
