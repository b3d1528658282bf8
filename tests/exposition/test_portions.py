"""Portions: a piece is cut if its lines take long, or grow too much."""

from __future__ import annotations

import pytest

from kmproxy.exposition.lines import GROWN, portions

WORK = 1 << 18
LINE = 64


@pytest.mark.parametrize("lines", [0, 1, 2047, 2048])
def test_a_piece_of_usual_lines_is_one_portion(lines):
    """Up to the bound of the work, and without a copy."""
    piece = b"\n" * lines + b"x" * ((1 << 17) - lines)
    assert len(piece) + LINE * lines <= WORK
    only, *others = portions(piece)
    assert only is piece
    assert others == []


@pytest.mark.parametrize("lines", [2049, 5000, 1 << 17])
def test_a_piece_of_more_lines_is_cut(lines):
    """By the number of lines, wherever they stand."""
    piece = b"x" * ((1 << 17) - lines) + b"\n" * lines
    cut = list(portions(piece))
    assert b"".join(cut) == piece
    assert len(cut) == -(-(len(piece) + LINE * lines) // WORK)


@pytest.mark.parametrize("lines", [512, 513])
def test_lines_that_grow_too_much_are_cut(lines):
    """Up to the bound of the bytes that a portion becomes."""
    piece = b"\n" * lines + b"x" * ((1 << 17) - lines)
    cut = list(portions(piece, 256))
    assert b"".join(cut) == piece
    assert (len(cut) == 1) == (len(piece) + 256 * lines <= GROWN)


def test_a_piece_over_the_bound_is_cut():
    """A piece of one long line."""
    assert [len(each) for each in portions(b"x" * (WORK + 1))] == [WORK, 1]
