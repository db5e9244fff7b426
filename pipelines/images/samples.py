"""Samples of an image: the type that decoders, conversions and encoders hand on."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Samples: TypeAlias = NDArray[np.unsignedinteger[Any]]  # uint8 or uint16
