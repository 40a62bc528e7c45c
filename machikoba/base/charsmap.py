"""Builds the "precompiled characters map" of a SentencePiece tokenizer from a plain mapping of characters.

`tokenizers.normalizers.Precompiled` reads a double-array trie (the layout of darts-clone, by S. Yata, as SentencePiece
uses it) over UTF-8 bytes, followed by the zero-terminated replacements. A unit holds its byte in bits 0-7, "has a leaf"
in bit 8, and the distance to its children in bits 10 and up; a leaf's unit has bit 31 set and holds the value.
"""
from __future__ import annotations

import struct
from collections.abc import Mapping

LEAF = 1 << 31


def precompiled(replacements: Mapping[str, str]) -> bytes:
    """The characters map, as bytes, that replaces each key (one character) by its value."""
    texts = bytearray()
    trie: dict = {}
    for character, replacement in replacements.items():
        node = trie
        for byte in character.encode("utf-8"):
            node = node.setdefault(byte, {})
        node[0] = len(texts)
        texts += replacement.encode("utf-8") + b"\0"
    units = _double_array(trie)
    return struct.pack("<I", 4 * len(units)) + struct.pack(f"<{len(units)}I", *units) + bytes(texts)


def _double_array(trie: dict) -> list[int]:
    units = {0: 0}
    bases: set[int] = set()
    free = 1
    waiting = [(0, trie)]
    while waiting:
        place, node = waiting.pop()
        base = free
        # A base belongs to one node only, else another node's child could be taken for ours.
        while base in bases or any((base ^ byte) in units for byte in node):
            base += 1
        bases.add(base)
        while free in bases:
            free += 1
        units[place] |= (place ^ base) << 10 | (0x100 if 0 in node else 0)
        for byte, child in node.items():
            units[base ^ byte] = LEAF | child if byte == 0 else byte
        waiting += [(base ^ byte, child) for byte, child in node.items() if byte]
    size = (max(units) // 256 + 1) * 256
    return [units.get(i, LEAF) for i in range(size)]  # an empty unit must match no byte
