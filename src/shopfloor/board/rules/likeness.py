"""How alike two tickets are: title and text together, each by weighted character n-grams unless a model does it. Pure."""

import itertools
import math
import re
import unicodedata
from array import array
from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass, field
from zlib import crc32

from shopfloor.board.port import Texts

GRAM = 4
TITLE_WEIGHT = 0.7
"""How much of the score is the title's; the rest is the title's and description's together."""
MOST_COMPARED = 100
MOST_TEXT = 600
"""Characters of a description that are looked at."""
WORD = re.compile(r"[^\W_]+")
STOP = frozenset(
    [
        "a",
        "an",
        "and",
        "are",
        "as",
        "at",
        "be",
        "by",
        "can",
        "do",
        "does",
        "for",
        "from",
        "has",
        "have",
        "if",
        "in",
        "into",
        "is",
        "it",
        "its",
        "of",
        "on",
        "or",
        "our",
        "should",
        "so",
        "that",
        "the",
        "their",
        "then",
        "there",
        "this",
        "to",
        "was",
        "we",
        "when",
        "where",
        "which",
        "will",
        "with",
        "please",
    ]
)
"""Words that say nothing of what a ticket is about."""
ENDINGS = ("ations", "ation", "ings", "ing", "ies", "ers", "ed", "es", "er", "s")


def words(text: str) -> list[str]:
    """The words that count, in plain letters, without their endings."""
    plain = unicodedata.normalize("NFKD", text).lower()
    plain = "".join(letter for letter in plain if not unicodedata.combining(letter))
    return [_stem(word) for word in WORD.findall(plain) if word not in STOP]


def _stem(word: str) -> str:
    for ending in ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= 4:
            return word[: -len(ending)]
    return word


def grams(text: str) -> set[int]:
    """The character n-grams of a text's words, hashed."""
    found = set()
    for word in words(text):
        padded = f" {word} "
        for start in range(max(1, len(padded) - GRAM + 1)):
            found.add(crc32(padded[start : start + GRAM].encode()))
    return found


class Field:
    """One text of every ticket: which n-grams it has, and which tickets have an n-gram. Some 8 bytes for each pair."""

    def __init__(self) -> None:
        self.of: dict[int, array[int]] = {}
        """A slot for each text: its n-grams."""
        self.keys: dict[int, str] = {}
        self.slots: dict[str, int] = {}
        self.holders: dict[int, array[int]] = {}
        """N-gram -> its slots, rising: a slot is never used again."""
        self._next = itertools.count()

    def put(self, key: str, text: str) -> None:
        """Take in, or replace, a ticket's text."""
        own = array("I", sorted(grams(text)))
        if key in self.slots and self.of[self.slots[key]] == own:
            return
        self.drop(key)
        slot = self.slots[key] = next(self._next)
        self.keys[slot], self.of[slot] = key, own
        for gram in own:
            self.holders.setdefault(gram, array("I")).append(slot)

    def drop(self, key: str) -> None:
        """Forget a ticket wholly: what stayed would make its n-grams seem common, and hide who has them."""
        if (slot := self.slots.pop(key, None)) is None:
            return
        del self.keys[slot]
        for gram in self.of.pop(slot):
            holders = self.holders[gram]
            del holders[bisect_left(holders, slot)]
            if not holders:
                del self.holders[gram]

    def weight(self, gram: int) -> float:
        """How much an n-gram tells: the rarer, the more."""
        return 1.0 + math.log((1 + len(self.keys)) / (1 + len(self.holders.get(gram, ()))))

    def scores(self, text: str) -> dict[str, float]:
        """Ticket -> cosine with a text, 0 to 1; those that share nothing rare are left out."""
        weights = {gram: self.weight(gram) for gram in grams(text)}
        common = max(50, len(self.keys) // 10)
        dots: dict[int, float] = {}
        for gram, weight in weights.items():
            holders = self.holders.get(gram, ())
            if len(holders) <= common:
                for slot in holders:
                    dots[slot] = dots.get(slot, 0.0) + weight * weight
        best = sorted(dots, key=dots.__getitem__, reverse=True)[:MOST_COMPARED]
        norm = math.sqrt(sum(weight * weight for weight in weights.values()))
        return {self.keys[slot]: self._cosine(self.of[slot], weights, norm) for slot in best}

    def _cosine(self, own: array[int], weights: dict[int, float], norm: float) -> float:
        weighed = [(gram, weights.get(gram) or self.weight(gram)) for gram in own]
        dot = sum(weight * weight for gram, weight in weighed if gram in weights)
        return dot / (norm * math.sqrt(sum(weight * weight for _, weight in weighed)))


@dataclass
class Index:
    """The tickets of one project that a new one may repeat."""

    titles: Texts = field(default_factory=Field)
    texts: Texts = field(default_factory=Field)

    def put(self, key: str, title: str, description: str) -> None:
        """Take in, or replace, a ticket."""
        self.titles.put(key, title)
        self.texts.put(key, f"{title} {description[:MOST_TEXT]}")

    def drop(self, key: str) -> None:
        """Forget a ticket."""
        self.titles.drop(key)
        self.texts.drop(key)

    def alike(self, title: str, description: str, *, threshold: float, limit: int) -> list[tuple[str, float]]:
        """The tickets most like a text, best first, with scores from `threshold` to 1."""
        by_title = self.titles.scores(title)
        by_text = self.texts.scores(f"{title} {description[:MOST_TEXT]}")
        scored = (
            (key, TITLE_WEIGHT * by_title.get(key, 0.0) + (1 - TITLE_WEIGHT) * by_text.get(key, 0.0))
            for key in by_title.keys() | by_text.keys()
        )
        return sorted(_at_least(scored, threshold), key=lambda found: (-found[1], found[0]))[:limit]


def _at_least(scored: Iterable[tuple[str, float]], threshold: float) -> list[tuple[str, float]]:
    return [(key, round(score, 4)) for key, score in scored if score >= threshold]
