"""A real static model of a few words, in which words that mean the same have the same vector."""

from pathlib import Path

import numpy as np
from model2vec import StaticModel
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.normalizers import Lowercase
from tokenizers.pre_tokenizers import Whitespace

UNKNOWN = "[UNK]"
MEANINGS = [
    ("broken", "cannot", "fails"),
    ("login", "sign"),
    ("mend", "repair"),
    ("gate", "door"),
    ("paint", "colour"),
    ("wall",),
    ("count", "number"),
    ("invoices", "bills"),
]


def word_model(folder: Path) -> Path:
    """Write the model into a folder; answers it."""
    ranks = {word: rank for rank, word in enumerate([UNKNOWN, *(word for same in MEANINGS for word in same)])}
    tokenizer = Tokenizer(WordLevel(ranks, unk_token=UNKNOWN))
    tokenizer.normalizer = Lowercase()
    tokenizer.pre_tokenizer = Whitespace()
    vectors = np.zeros((len(ranks), len(MEANINGS)), dtype=np.float32)
    for axis, same in enumerate(MEANINGS):
        for word in same:
            vectors[ranks[word], axis] = 1
    StaticModel(vectors, tokenizer).save_pretrained(folder)
    return folder
