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
from sklearn.feature_extraction.text import CountVectorizer

from machikoba.records.clean import normalise

SMALL = 2_000  # messages; below it every n-gram is kept, above it only those that two messages share


class Counts:
    """How often each n-gram stands in each of n messages: counted once, however many parts of them are learnt from.

    terms: the n-grams, sorted, (n_terms,) str; matrix: csr float32 (n, n_terms).
    """

    def __init__(self, terms: np.ndarray, matrix: csr_matrix) -> None:
        self.terms, self.matrix = terms, matrix

    @classmethod
    def of(cls, texts: Sequence[str]) -> Counts:
        """Counts of `texts` (n,)."""
        vectorizer = _vectorizer(min_df=1 if len(texts) < SMALL else 2)
        try:
            matrix = vectorizer.fit_transform(normalise(text) for text in texts)
        except ValueError:  # not one n-gram in all of them
            return cls(np.array([], dtype=object), csr_matrix((len(texts), 0), dtype=np.float32))
        return cls(vectorizer.get_feature_names_out(), matrix)

    def subset(self, rows: np.ndarray) -> Counts:
        """The messages at `rows`, with the n-grams of all."""
        return Counts(self.terms, self.matrix[rows])


class Ngrams:
    """TF-IDF of character 1- to 4-grams inside words, rows of length 1.

    columns: the n-grams that are known, int (k,) into the terms of the counts that were learnt from; idf: inverse document
    frequency of each, float32 (k,).
    """

    def __init__(self, all_terms: np.ndarray, columns: np.ndarray, idf: np.ndarray) -> None:
        self._all_terms, self.columns, self.idf = all_terms, columns, idf
        self._packed: PackedNgrams | None = None

    @classmethod
    def fit(cls, counts: Counts) -> Ngrams:
        """Learns which n-grams there are, and in how many of the messages."""
        n = counts.matrix.shape[0]
        frequency = np.bincount(counts.matrix.indices, minlength=len(counts.terms))
        columns = np.flatnonzero(frequency >= (1 if n < SMALL else 2))
        return cls(counts.terms, columns, (np.log((1 + n) / (1 + frequency[columns])) + 1).astype(np.float32))

    def weigh(self, counts: Counts) -> csr_matrix:
        """Sparse float32 rows (n, k) of messages that were counted together with those learnt from."""
        assert counts.terms is self._all_terms, "counted with other messages"
        return _weighed(counts.matrix[:, self.columns], self.idf)

    def transform(self, texts: Sequence[str]) -> csr_matrix:
        """Sparse float32 rows (n, k) of any messages."""
        if self._packed is None:
            self._packed = PackedNgrams.of(self._all_terms[self.columns].tolist(), self.idf)
        return self._packed.transform(texts)

    def terms(self) -> bytes:
        """The vocabulary as JSON, in the order of the columns."""
        return json.dumps(self._all_terms[self.columns].tolist(), ensure_ascii=False).encode()

    @property
    def nbytes(self) -> int:
        """About how many bytes the vocabulary takes."""
        return 100 * len(self.columns)


class PackedNgrams:
    """What `Ngrams` has learnt, for answering only: a hash of each n-gram instead of itself, a tenth of the memory.

    hashes: sorted uint64 (n_ngrams,); columns: the column of each, int32; idf float32 (n_ngrams,). Two of a million n-grams
    share a hash of 64 bits with a chance of one in 30 million.
    """

    def __init__(self, hashes: np.ndarray, columns: np.ndarray, idf: np.ndarray) -> None:
        self.hashes, self.columns, self.idf = hashes, columns, idf

    @classmethod
    def of(cls, terms: Collection[str], idf: np.ndarray) -> PackedNgrams:
        """For n-grams in the order of their columns."""
        hashes = _hashes(terms)
        order = np.argsort(hashes)
        return cls(hashes[order], order.astype(np.int32), idf)

    @classmethod
    def load(cls, terms: bytes, idf: np.ndarray) -> PackedNgrams:
        """From the `terms` and `idf` of `Ngrams`."""
        return cls.of(json.loads(terms), idf)

    def transform(self, texts: Sequence[str]) -> csr_matrix:
        """Sparse float32 rows (n, n_ngrams), as of `Ngrams.transform`."""
        counts, columns, ends = [], [], [0]
        for text in texts:
            found = Counter(_analyse(normalise(text)))
            hashes = _hashes(found)
            place = np.minimum(np.searchsorted(self.hashes, hashes), max(len(self.hashes) - 1, 0))
            known = self.hashes[place] == hashes if len(self.hashes) else np.zeros(len(hashes), dtype=bool)
            columns.append(self.columns[place[known]])
            counts.append(np.fromiter(found.values(), np.float32, len(found))[known])
            ends.append(ends[-1] + len(columns[-1]))
        if not texts:
            return csr_matrix((0, len(self.idf)), dtype=np.float32)
        made = csr_matrix((np.concatenate(counts), np.concatenate(columns), np.array(ends)), shape=(len(texts), len(self.idf)))
        made.sort_indices()
        return _weighed(made, self.idf)

    @property
    def nbytes(self) -> int:
        return self.hashes.nbytes + self.columns.nbytes + self.idf.nbytes


def _weighed(counts: csr_matrix, idf: np.ndarray) -> csr_matrix:
    """(1 + ln count) · idf, rows scaled to length 1; a row without n-grams stays empty."""
    data = (np.log(counts.data) + 1) * idf[counts.indices]
    squares = np.add.reduceat(np.append(data * data, 0), counts.indptr[:-1]) if len(counts.indptr) > 1 else np.zeros(0)
    sizes = np.diff(counts.indptr)
    lengths = np.sqrt(np.where(sizes > 0, squares, 1)).astype(np.float32)
    return csr_matrix((data / np.repeat(lengths, sizes), counts.indices, counts.indptr), shape=counts.shape)


def _hashes(terms: Collection[str]) -> np.ndarray:
    """Eight bytes of BLAKE2b of each term, uint64: the same on every machine, unlike Python's own hash."""
    digests = b"".join(blake2b(term.encode("utf-8", "surrogatepass"), digest_size=8).digest() for term in terms)
    return np.frombuffer(digests, dtype="<u8").astype(np.uint64)


def _vectorizer(**options: object) -> CountVectorizer:
    return CountVectorizer(analyzer="char_wb", ngram_range=(1, 4), lowercase=False, dtype=np.float32, **options)


_analyse = _vectorizer().build_analyzer()
