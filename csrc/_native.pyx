# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The kernels from Python: checks shapes and dtypes, releases the GIL, opens the OpenMP team, calls C.

One extension in parts, each of which needs only those before it.
"""

import mmap
import os
from contextlib import suppress

import numpy as np

from swarm.errors import ExpertAbsent, ExpertUnreadable, ModelError

from cython.parallel cimport parallel, threadid
from libc.stdint cimport int8_t, int16_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t, uintptr_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memmove, memset
cimport openmp

include "isa.pxi"
include "ways.pxi"
include "experts.pxi"
include "weights.pxi"
include "stage.pxi"
include "kvcache.pxi"
include "workspace.pxi"
include "engine.pxi"
include "fit.pxi"
include "numbers.pxi"
include "texts.pxi"
