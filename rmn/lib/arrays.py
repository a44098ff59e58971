"""Arrays, and the letters their names end in.

A name such as ``spend_C`` says its axes: C campaigns or arms, G groups, D days, R retailers,
K keywords, S draws, U units of an experiment, A adapters, B batch, T tokens, V vocabulary.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[np.float64]
IntArray: TypeAlias = NDArray[np.int64]
BoolArray: TypeAlias = NDArray[np.bool_]
