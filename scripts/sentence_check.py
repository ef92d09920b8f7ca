"""Ranks held-out pairs with a trained sentence model, and with nothing but counted words, for comparison.

python scripts/sentence_check.py serving/cotenant_serving/demo_models/sentences
"""

import argparse
import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from sentence_text import read_pairs
from transformers import AutoModel, AutoTokenizer

PAIRS_FILE = Path(__file__).with_name("sentence_pairs.yaml")
Similarity = Callable[[Sequence[str], Sequence[str]], torch.Tensor]
"""(queries, sentences) → (queries, sentences) float32: the greater, the nearer."""


def embedder(folder: Path, dimensions: int | None = None) -> Similarity:
    """Cosine similarity of mean-pooled embeddings, by transformers alone; of the first `dimensions` if given."""
    model, tokenizer = (
        AutoModel.from_pretrained(folder, add_pooling_layer=False).eval(),
        AutoTokenizer.from_pretrained(folder),
    )

    @torch.inference_mode()
    def embed(texts: Sequence[str]) -> torch.Tensor:
        inputs = tokenizer(list(texts), padding=True, truncation=True, return_tensors="pt")
        mask = inputs["attention_mask"].unsqueeze(-1)
        pooled = (model(**inputs).last_hidden_state * mask).sum(1) / mask.sum(1)
        return torch.nn.functional.normalize(pooled[:, :dimensions], dim=-1)

    return lambda queries, sentences: embed(queries) @ embed(sentences).T


def counted_words(queries: Sequence[str], sentences: Sequence[str]) -> torch.Tensor:
    """The baseline: cosine of word counts, rare words weighing more (log of how many sentences lack them)."""
    documents = Counter(word for sentence in sentences for word in set(words(sentence)))
    weight = {word: math.log((1 + len(sentences)) / (1 + documents[word])) + 1 for word in documents}

    def vector(text: str) -> dict[str, float]:
        counts = {word: count * weight.get(word, 1.0) for word, count in Counter(words(text)).items()}
        length = math.sqrt(sum(value**2 for value in counts.values())) or 1.0
        return {word: value / length for word, value in counts.items()}

    right = [vector(sentence) for sentence in sentences]
    rows = [
        [sum(value * other.get(word, 0.0) for word, value in vector(query).items()) for other in right]
        for query in queries
    ]
    return torch.tensor(rows)


def words(text: str) -> list[str]:
    return re.findall(r"[a-z0-9']+", text.lower())


def wrong_ones(pairs: Sequence[tuple[str, str]], similarity: Similarity) -> list[tuple[str, str, str]]:
    """(query, right sentence, the one ranked first instead) wherever the right one is not alone in first place."""
    queries, sentences = [query for query, _ in pairs], [right for _, right in pairs]
    found = []
    for index, scores in enumerate(similarity(queries, sentences)):
        rivals = scores.clone()
        rivals[index] = -math.inf
        best = int(rivals.argmax())
        if scores[index] <= rivals[best]:
            found.append((queries[index], sentences[index], sentences[best]))
    return found


def report(folder: Path, *, show: bool) -> None:
    """A line for each set of pairs; with `show` also what went wrong."""
    similarities = {
        "embeddings": embedder(folder),
        "of 32 dimensions": embedder(folder, 32),
        "counted words": counted_words,
    }
    for name, pairs in read_pairs(PAIRS_FILE).items():
        for kind, similarity in similarities.items():
            wrong = wrong_ones(pairs, similarity)
            print(f"{name}: {kind}: right sentence first for {len(pairs) - len(wrong)} of {len(pairs)}")
            if show and kind == "embeddings":
                for query, right, first in wrong:
                    print(f"  {query}\n    wanted  {right}\n    first   {first}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--show", action="store_true", help="print the queries that went wrong")
    arguments = parser.parse_args()
    report(arguments.folder, show=arguments.show)


if __name__ == "__main__":
    main()
