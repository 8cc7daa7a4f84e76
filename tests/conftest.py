"""What all tests share: one thread for the peers, hypothesis's profile, seeded random numbers."""

from __future__ import annotations

import os
import zlib

import hypothesis
import numpy as np
import pytest
import torch

torch.set_num_threads(1)

# No deadline: tests do not judge time. No database: a run does not depend on the one before.
hypothesis.settings.register_profile(
    "fastrnn", deadline=None, database=None, max_examples=300, derandomize="CI" in os.environ
)
hypothesis.settings.load_profile("fastrnn")


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> np.random.Generator:
    """Random numbers that are the same in every run, and others in every test."""
    return np.random.default_rng(zlib.crc32(request.node.name.encode()))
