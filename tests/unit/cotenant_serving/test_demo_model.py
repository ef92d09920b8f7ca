"""The chat model of the demo, as it is shipped: small, safe to load, and able to answer what the demo asks."""

import json
from pathlib import Path
from typing import Any

import pytest

MODEL_DIR = Path(__file__).parents[3] / "serving" / "cotenant_serving" / "demo_models" / "chat"


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(MODEL_DIR)


@pytest.fixture(scope="module")
def model() -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(MODEL_DIR, attn_implementation="sdpa").eval()


def greedy(model: Any, tokenizer: Any, *messages: tuple[str, str]) -> list[int]:
    """The tokens that follow `(role, content)` messages, at most 100 of them."""
    import torch

    conversation = [{"role": role, "content": content} for role, content in messages]
    inputs = tokenizer.apply_chat_template(
        conversation, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    with torch.inference_mode():
        output = model.generate(**inputs, max_new_tokens=100, do_sample=False)
    tokens: list[int] = output[0, inputs["input_ids"].shape[1] :].tolist()
    return tokens


def test_the_whole_folder_is_at_most_ten_megabytes() -> None:
    assert sum(file.stat().st_size for file in MODEL_DIR.rglob("*") if file.is_file()) <= 10_000_000


def test_the_folder_holds_safetensors_and_text_and_nothing_that_runs_when_loaded() -> None:
    suffixes = {file.suffix for file in MODEL_DIR.rglob("*") if file.is_file()}
    assert suffixes == {".safetensors", ".json", ".jinja", ".md"}


def test_the_config_names_a_llama_with_its_special_tokens() -> None:
    config = json.loads((MODEL_DIR / "config.json").read_text(encoding="utf-8"))
    assert config["architectures"] == ["LlamaForCausalLM"]
    assert (config["dtype"], config["max_position_embeddings"]) == ("float32", 512)
    assert len({config["pad_token_id"], config["bos_token_id"], config["eos_token_id"]}) == 3
    assert "auto_map" not in config


def test_the_model_card_has_a_licence_and_says_what_the_model_is_not() -> None:
    card = (MODEL_DIR / "README.md").read_text(encoding="utf-8")
    assert card.startswith("---\n")
    assert "license: apache-2.0" in card
    assert "What it is not" in card


def test_the_model_loads_in_single_precision_with_tied_embeddings(model: Any) -> None:
    import torch

    assert model.dtype == torch.float32
    assert model.get_input_embeddings().weight is model.get_output_embeddings().weight
    assert sum(parameter.numel() for parameter in model.parameters()) < 2_500_000


@pytest.mark.parametrize(
    "text",
    [
        "cotenant up -f models.yaml",
        "  two  spaces , and\ttabs\n\n",
        "naïve café, 你好, Привет, 🙂👩‍🚀",
        "\x00\u200b\ufffd",
        "",
    ],
    ids=["command", "white space", "other scripts", "odd characters", "nothing"],
)
def test_the_tokenizer_gives_back_any_text_unchanged(tokenizer: Any, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) == text


def test_end_of_turn_is_the_end_of_sequence(tokenizer: Any, model: Any) -> None:
    assert tokenizer.encode("<|im_end|>", add_special_tokens=False) == [tokenizer.eos_token_id]
    assert model.generation_config.eos_token_id == model.config.eos_token_id == tokenizer.eos_token_id


def test_the_chat_template_renders_system_user_and_assistant(tokenizer: Any) -> None:
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello!"},
        {"role": "user", "content": [{"type": "text", "text": "Bye"}]},
    ]
    rendered = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert rendered == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
        "<|im_start|>assistant\nHello!<|im_end|>\n<|im_start|>user\nBye<|im_end|>\n<|im_start|>assistant\n"
    )


@pytest.mark.parametrize(
    ("question", "words"),
    [
        ("What is cotenant and who is it for?", ["tenants", "share", "GPUs", "platform teams", "ML engineers"]),
        ("Can I run cotenant without a GPU?", ["device: cpu", "laptop"]),
        ("Why do I get a 429?", ["limits", "Retry-After"]),
        ("What happens when I call a sleeping model?", ["gateway", "holds your request", "conductor"]),
        ("Why safetensors only?", ["pickle", "code"]),
        ("What is the capital of France?", ["only know about cotenant"]),
    ],
)
def test_a_question_is_answered_as_intended_and_the_answer_ends(
    model: Any, tokenizer: Any, question: str, words: list[str]
) -> None:
    tokens = greedy(model, tokenizer, ("user", question))
    assert tokens[-1] == tokenizer.eos_token_id
    answer = tokenizer.decode(tokens, skip_special_tokens=True)
    assert [word for word in words if word not in answer] == []


def test_a_system_message_and_earlier_turns_do_not_confuse_it(model: Any, tokenizer: Any) -> None:
    tokens = greedy(
        model,
        tokenizer,
        ("system", "You are a helpful assistant."),
        ("user", "Hello"),
        ("assistant", "Hello! I am the demo model of cotenant."),
        ("user", "What does the guard do?"),
    )
    assert "compares what the device really uses" in tokenizer.decode(tokens)
