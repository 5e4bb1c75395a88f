"""Tests of the speech engine. numpy computes on the thread that asks, as in the engine: threads that
wait for each other by spinning make these tests many times slower on a busy machine."""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
