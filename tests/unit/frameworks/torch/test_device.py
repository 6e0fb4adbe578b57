"""Memory of a device and its rate of matrix products."""

from __future__ import annotations

import time

import torch

from sampan import host
from sampan.frameworks.torch import device


def test_the_cpus_memory_is_the_machines():
    total, free = device.memory_bytes("cpu")
    assert total == host.memory_bytes()[0] and total and free and 0 < free <= total


def test_the_cpus_peak_is_the_processs():
    peak = device.peak_memory_bytes("cpu")
    assert peak is not None and peak > 2**24


def test_the_rate_of_matrix_products_is_found_quickly_and_is_not_too_high():
    start = time.perf_counter()
    rate = device.matmul_flops_per_s("cpu", "fp32")
    assert time.perf_counter() - start < 5  # half a second where nothing else runs
    matrix = torch.ones(512, 512)
    began = time.perf_counter()
    for _ in range(4):
        matrix @ matrix
    simple = 4 * 2 * 512**3 / (time.perf_counter() - began)
    assert rate > simple / 4 and 1e8 < rate < 1e15
