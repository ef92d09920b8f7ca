"""Asks a trained demo model what it was not trained on, and counts the answers that are the wanted ones."""

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from chat_text import Fact, Message, TrainingText, turn
from transformers import AutoModelForCausalLM, AutoTokenizer


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
