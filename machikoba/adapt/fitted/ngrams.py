"""Character n-grams with TF-IDF weights: the words half of every rung, without a word segmenter.

Character n-grams need no dictionary, work for Japanese, English and Chinese in one message and forgive typos.
"""
from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Sequence
from hashlib import blake2b

import numpy as np
from scipy.sparse import csr_matrix
from sklearn.feature_extraction.text import TfidfVectorizer

from machikoba.records.clean import normalise

SMALL = 2_000  # rows; below it every n-gram is kept, above it only those that two messages share


class Ngrams:
    """TF-IDF of character 1- to 4-grams inside words, rows of length 1."""

    def __init__(self, vectorizer: TfidfVectorizer) -> None:
        self._vectorizer = vectorizer

    @classmethod
    def fit(cls, texts: Sequence[str]) -> Ngrams:
        """Learns vocabulary and document frequencies from `texts` (n,)."""
        vectorizer = _vectorizer(min_df=1 if len(texts) < SMALL else 2)
        vectorizer.fit(normalise(text) for text in texts)
        return cls(vectorizer)

    def transform(self, texts: Sequence[str]) -> csr_matrix:
        """Sparse float32 rows (n, n_ngrams)."""
        return self._vectorizer.transform(normalise(text) for text in texts)

    def terms(self) -> bytes:
        """The vocabulary as JSON, in the order of the columns."""
        return json.dumps(self._vectorizer.get_feature_names_out().tolist(), ensure_ascii=False).encode()

    @property
    def idf(self) -> np.ndarray:
        """Inverse document frequency of each n-gram, float32 (n_ngrams,)."""
        return self._vectorizer.idf_.astype(np.float32)

    @property
    def nbytes(self) -> int:
        """About how many bytes the vocabulary takes."""
        return 150 * len(self._vectorizer.vocabulary_)


class PackedNgrams:
    """What `Ngrams` has learnt, for answering only: a hash of each n-gram instead of itself, a tenth of the memory.

    hashes: sorted uint64 (n_ngrams,); columns: the column of each, int32; idf float32 (n_ngrams,). Two of a million n-grams
    share a hash of 64 bits with a chance of one in 30 million.
    """

    def __init__(self, hashes: np.ndarray, columns: np.ndarray, idf: np.ndarray) -> None:
        self.hashes, self.columns, self.idf = hashes, columns, idf

    @classmethod
    def load(cls, terms: bytes, idf: np.ndarray) -> PackedNgrams:
        """From the `terms` and `idf` of `Ngrams`."""
        hashes = _hashes(json.loads(terms))
        order = np.argsort(hashes)
        return cls(hashes[order], order.astype(np.int32), idf)

    def transform(self, texts: Sequence[str]) -> csr_matrix:
        """Sparse float32 rows (n, n_ngrams), as of `Ngrams.transform`."""
        data, columns, ends = [], [], [0]
        for text in texts:
            counts = Counter(_analyse(normalise(text)))
            hashes = _hashes(counts)
            place = np.minimum(np.searchsorted(self.hashes, hashes), max(len(self.hashes) - 1, 0))
            known = self.hashes[place] == hashes if len(self.hashes) else np.zeros(len(hashes), dtype=bool)
            at = self.columns[place[known]]
            values = (np.log(np.fromiter(counts.values(), np.float32, len(counts))[known]) + 1.0) * self.idf[at]
            length = np.sqrt((values * values).sum())
            data.append(values / length if length else values)
            columns.append(at)
            ends.append(ends[-1] + len(at))
        if not data:
            return csr_matrix((0, len(self.idf)), dtype=np.float32)
        made = csr_matrix((np.concatenate(data), np.concatenate(columns), np.array(ends)), shape=(len(data), len(self.idf)))
        made.sort_indices()
        return made

    @property
    def nbytes(self) -> int:
        return self.hashes.nbytes + self.columns.nbytes + self.idf.nbytes


def _hashes(terms: Collection[str]) -> np.ndarray:
    """Eight bytes of BLAKE2b of each term, uint64: the same on every machine, unlike Python's own hash."""
    digests = b"".join(blake2b(term.encode("utf-8", "surrogatepass"), digest_size=8).digest() for term in terms)
    return np.frombuffer(digests, dtype="<u8").astype(np.uint64)


def _vectorizer(**options: object) -> TfidfVectorizer:
    return TfidfVectorizer(
        analyzer="char_wb", ngram_range=(1, 4), sublinear_tf=True, lowercase=False, dtype=np.float32, **options)


_analyse = _vectorizer().build_analyzer()
