"""Banded matrices written out, number by number."""

from __future__ import annotations

import torch
from torch import Tensor

from realesr_cli.ops.banded import Banded


def dense(matrix: Banded) -> Tensor:
    """All numbers of a banded matrix, (rows, columns) float64, placed by what its fields mean."""
    width = matrix.weights.shape[1]
    result = torch.zeros(matrix.rows, matrix.columns + width, dtype=torch.float64)
    for row, first in enumerate(matrix.first.tolist()):
        result[row, first : first + width] = matrix.weights[row]
    return result[:, : matrix.columns]
