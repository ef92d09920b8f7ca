"""`sentence_training_text.yaml` → pairs of texts that mean the same, for the demo's sentence model."""

import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml
from chat_text import Fact, lines, vary

CARRIERS = ["{x}", "{x}", "the {x}", "a {x}", "about {x}", "{x}?", "something with {x}", "it is {x}"]
SWAP_CHANCE = 0.35
DROP_CHANCE = 0.12
ENDING_CHANCE = 0.15
GAP = "\N{BLACK SQUARE}"
WORDS = re.compile(r"[\w'’-]+|[^\w\s]")


@dataclass(frozen=True)
class Pair:
    """Two texts that belong together. Two pairs of the same `meaning` are no negatives of each other."""

    left: str
    right: str
    meaning: str


@dataclass(frozen=True)
class SentenceText:
    small_words: frozenset[str]
    fields: dict[str, list[str]]
    swaps: list[list[str]]
    groups: list[list[str]]
    frames: list[list[str]]
    slots: dict[str, list[list[str]]]
    facts: list[Fact]


def read_text(path: Path, facts: list[Fact]) -> SentenceText:
    document = yaml.safe_load(path.read_text(encoding="utf-8"))
    return SentenceText(
        small_words=frozenset(document["small_words"].split()),
        fields={name: split(words, ",") for name, words in document["fields"].items()},
        swaps=[split(line, ",") for line in lines(document["swaps"])],
        groups=blocks(document["groups"]),
        frames=blocks(document["frames"]),
        slots={name: [split(line, "|") for line in lines(block)] for name, block in document["slots"].items()},
        facts=facts,
    )


def read_pairs(path: Path) -> dict[str, list[tuple[str, str]]]:
    """The sets of held-out pairs by name: (query, right sentence)."""
    document = yaml.safe_load(path.read_text(encoding="utf-8"))
    sets = {}
    for name, block in document.items():
        halves = [split(line, "|") for line in lines(block)]
        sets[name] = [(query, right) for query, right in halves]
    return sets


def split(line: str, separator: str) -> list[str]:
    return [part.strip() for part in line.split(separator)]


def blocks(text: str) -> list[list[str]]:
    return [lines(block) for block in text.strip().split("\n\n")]


class PairMaker:
    """Endless pairs of each kind. The same seed gives the same pairs."""

    def __init__(self, text: SentenceText, rng: random.Random) -> None:
        self._text = text
        self._rng = rng
        self._swaps = _by_phrase(text.swaps)
        self._names = list(text.fields)
        self._forms = sentence_forms(text)
        phrases = sorted(self._swaps, key=len, reverse=True)
        self._phrase = re.compile(r"\b(" + "|".join(map(re.escape, phrases)) + r")\b", re.IGNORECASE)
        self.kinds: dict[str, Callable[[], Pair]] = {
            "field": self.field,
            "swap": self.swap,
            "group": self.group,
            "frame": self.frame,
            "fact": self.fact,
            "answer": self.answer,
        }

    def field(self) -> Pair:
        """Different words of the same one, two or three subjects, on each side in the form of some other sentence."""
        names = self._rng.sample(self._names, k=self._rng.choice([1, 1, 2, 2, 3]))
        words = {name: self._rng.sample(self._text.fields[name], k=len(self._text.fields[name])) for name in names}
        left, right = (self._about([words[name][half::2] for name in names]) for half in (0, 1))
        return Pair(left, right, "field " + " ".join(sorted(names)))

    def swap(self) -> Pair:
        number = self._rng.randrange(len(self._text.swaps))
        left, right = self._rng.sample(self._text.swaps[number], k=2)
        carrier = self._rng.choice(CARRIERS)
        return Pair(carrier.format(x=left), carrier.format(x=right), f"swap {number}")

    def group(self) -> Pair:
        number = self._rng.randrange(len(self._text.groups))
        left, right = self._rng.sample(self._text.groups[number], k=2)
        return Pair(self.reword(left), self.reword(right), f"group {number}")

    def frame(self) -> Pair:
        number = self._rng.randrange(len(self._text.frames))
        left, right = self._rng.sample(self._text.frames[number], k=2)
        names = sorted({"who2": "who"}.get(name, name) for name in re.findall(r"{(\w+)}", left + right))
        chosen = {name: self._rng.choice(self._text.slots[name]) for name in names}
        chosen["who2"] = self._rng.choice(self._text.slots["who"])
        meaning = " ".join([f"frame {number}", *(f"{name}={values[0]}" for name, values in sorted(chosen.items()))])
        return Pair(self._fill(left, chosen), self._fill(right, chosen), meaning)

    def fact(self) -> Pair:
        """Two questions with the same answer, or a question and a sentence of its answer."""
        fact = self._rng.choice(self._text.facts)
        left, right = (vary(self._rng.choice(fact.questions), self._rng) for _ in range(2))
        if self._rng.random() < 0.4:
            right = self.reword(self._rng.choice(re.split(r"(?<=[.!?]) ", fact.answer)))
        return Pair(left, right, f"fact {fact.name}")

    def answer(self) -> Pair:
        """A question and its whole answer: the longest texts, so they get batches of their own."""
        fact = self._rng.choice(self._text.facts)
        return Pair(vary(self._rng.choice(fact.questions), self._rng), fact.answer, f"fact {fact.name}")

    def reword(self, sentence: str) -> str:
        """The same sentence with other words of the same meaning, and without a few of its words."""
        sentence = self._phrase.sub(self._swapped, sentence)
        words = WORDS.findall(sentence)
        kept = [word for word in words if self._rng.random() > DROP_CHANCE]
        return " ".join(kept or words)

    def _about(self, subjects: list[list[str]]) -> str:
        """A sentence form whose gaps hold words of all the subjects, or now and then the words alone."""
        form = self._rng.choice(self._forms)
        gaps = form.count(GAP)
        if gaps < len(subjects) or self._rng.random() < 0.25:
            gaps = self._rng.randint(len(subjects), len(subjects) + 2)
            form = " ".join([GAP] * gaps)
        sources = [subjects[number % len(subjects)] for number in range(gaps)]
        self._rng.shuffle(sources)
        for source in sources:
            form = form.replace(GAP, self._with_ending(source.pop() if source else ""), 1)
        return form

    def _with_ending(self, word: str) -> str:
        """At times with an ending, right or wrong: the stem is what matters."""
        return word + self._rng.choice(["s", "ing", "ed"]) if self._rng.random() < ENDING_CHANCE else word

    def _swapped(self, match: re.Match[str]) -> str:
        if self._rng.random() > SWAP_CHANCE:
            return match[0]
        return self._rng.choice(self._swaps[match[0].lower()])

    def _fill(self, frame: str, chosen: dict[str, list[str]]) -> str:
        return frame.format(**{name: self._rng.choice(values) for name, values in chosen.items()})


def batches(
    maker: PairMaker, mix: dict[tuple[str, ...], float], size: int, rng: random.Random
) -> Iterator[list[Pair]]:
    """Batches of one mixture of kinds each: `mix` has the share of batches by the kinds in them."""
    mixtures = list(mix)
    while True:
        kinds = rng.choices(mixtures, list(mix.values()))[0]
        yield [maker.kinds[rng.choice(kinds)]() for _ in range(size)]


def all_texts(text: SentenceText) -> Iterator[str]:
    """Every text once, for the vocabulary."""
    for words in (*text.fields.values(), *text.swaps):
        yield " ".join(words)
    for block in (*text.groups, *text.frames):
        yield from (re.sub(r"{\w+}", " ", sentence) for sentence in block)
    for values in text.slots.values():
        yield from (" ".join(same) for same in values)
    for fact in text.facts:
        yield from (*sorted(set(fact.questions)), fact.answer)


def sentence_forms(text: SentenceText) -> list[str]:
    """The sentences of all groups with a gap for every word that belongs to a subject, three words or more long."""
    known = {word for words in text.fields.values() for phrase in words for word in phrase.lower().split()}
    known -= text.small_words
    forms = []
    for group in text.groups:
        for sentence in group:
            words = [GAP if word.lower() in known or word.isdigit() else word for word in WORDS.findall(sentence)]
            forms.append(" ".join(words))
    return [form for form in forms if 1 <= form.count(GAP) <= 6]


def _by_phrase(swaps: list[list[str]]) -> dict[str, list[str]]:
    """For each word or phrase what may stand in its place."""
    others: dict[str, list[str]] = {}
    for phrases in swaps:
        for phrase in phrases:
            others.setdefault(phrase.lower(), []).extend(other for other in phrases if other != phrase)
    return others
