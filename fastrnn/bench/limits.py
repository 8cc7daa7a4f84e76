"""What the machine could do at best, measured on it while the benchmark runs.

One step of a layer can be no faster than each of these:

* its floating-point operations at the rate of independent fused multiply-adds in registers,
* the recurrent matrix read once, at the rate of the nearest cache that can hold it,
* the chain of operations that depend on each other: one fused multiply-add per unit (the
  order of the sum is part of the promise of equal bits), then the point-wise functions.

The limit of a forward is the largest of the three times the number of steps. A backward has twice
the operations, reads the recurrent matrix once more, and has a chain over the units for each gate,
but no functions in it: what they need is known before. The limit of a training step is that of the
forward and that of the backward together. Other processes on the machine only ever lower what is
measured, so the best value of a run is kept.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from .cases import FORWARD, TRAIN, Case

_BURST_SECONDS = 2e-3
_BURSTS = 5

# Where the system does not tell: small enough to be true of nearly every CPU of the last decade.
_USUAL_CACHES = {"L1": 32 << 10, "L2": 512 << 10, "L3": 8 << 20}
_PRIVATE = ("L1", "L2")  # each thread has one of its own and needs only its slice of the matrix
_MAX_BUFFER = 256 << 20

# Point-wise functions of one step in units of one dependent multiply-add: an exponential and a
# division in a row, and the store and broadcast of h. LSTM and GRU have two such pairs.
_FUNCTION_CHAIN = 17
_EXCHANGE_CHAIN = 3


def cache_sizes() -> dict[str, int]:
    """Return level -> bytes of the data caches that the first CPU sees."""
    sizes = {}
    for index in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        try:
            kind, level, size = (
                (index / name).read_text().strip() for name in ("type", "level", "size")
            )
        except OSError:
            continue
        if kind in ("Data", "Unified") and size.endswith("K"):
            sizes[f"L{level}"] = int(size[:-1]) << 10
    return sizes or dict(_USUAL_CACHES)


@dataclass(frozen=True)
class Limits:
    """Rates of `threads` threads together."""

    threads: int
    flops: float  # floating-point operations a second
    bandwidth: dict[str, float]  # level -> bytes a second; "DRAM" behind the last cache
    chain: float  # seconds of one multiplication that waits for the one before
    caches: dict[str, int]  # level -> bytes

    @classmethod
    def measure(cls, threads: int) -> Limits:
        """Measure for about a tenth of a second."""
        from fastrnn import _core

        caches = cache_sizes()
        sizes = {level: size // 2 for level, size in caches.items()}
        last = max(caches, key=lambda level: caches[level])
        # A shared last level may be huge; what matters is to be well outside the one before.
        inner = max((s for level, s in caches.items() if level != last), default=0)
        sizes[last] = min(sizes[last], max(4 * inner, 4 << 20))
        if 2 * caches[last] <= _MAX_BUFFER:
            sizes["DRAM"] = max(2 * caches[last], 64 << 20)

        with ThreadPoolExecutor(threads) as pool:

            def rate(work: Callable[[int, int], float]) -> float:
                return max(_burst(pool, threads, work) for _ in range(_BURSTS))

            bandwidth = {}
            for level, size in sizes.items():
                share = size if level in _PRIVATE else -(-size // threads)
                buffers = [_aligned_ones(share) for _ in range(threads)]
                bandwidth[level] = rate(_reading(buffers))
            flops = rate(lambda thread, n: float(_core.fma_flops(n)))
        return cls(threads, flops, bandwidth, _chain_seconds(), caches)

    def best(self, other: Limits) -> Limits:
        """Return the better of each rate."""
        return Limits(
            self.threads,
            max(self.flops, other.flops),
            {level: max(rate, other.bandwidth[level]) for level, rate in self.bandwidth.items()},
            min(self.chain, other.chain),
            self.caches,
        )

    def level(self, size: int) -> str:
        """Return the nearest level that holds a matrix of that many bytes."""
        for level, capacity in sorted(self.caches.items(), key=lambda item: item[1]):
            share = -(-size // self.threads) if level in _PRIVATE else size
            if share <= capacity:
                return level
        return list(self.bandwidth)[-1]

    def seconds(self, case: Case) -> float:
        """Return the least time of one call of a case with products."""
        forward_flops = replace(case, mode=FORWARD).flops
        arithmetic = forward_flops / case.shape.steps / self.flops
        reading = case.recurrent_bytes / self.bandwidth[self.level(case.recurrent_bytes)]
        functions = 2 if case.cell in ("lstm", "gru") else 1
        links = case.shape.hidden_size + _EXCHANGE_CHAIN
        step = max(arithmetic, reading, (links + _FUNCTION_CHAIN * functions) * self.chain)
        if case.mode == TRAIN:
            step += max(2 * arithmetic, reading, links * self.chain)
        return case.shape.steps * step


def _reading(buffers: list[np.ndarray]) -> Callable[[int, int], float]:
    """Return work(thread, n) that reads the thread's buffer n times."""
    from fastrnn import _core

    return lambda thread, n: float(_core.read_bytes(buffers[thread], n))


def _aligned_ones(size: int) -> np.ndarray:
    """Return that many bytes that begin at a cache line."""
    line = 64
    array = np.ones(size + line, np.uint8)
    start = -array.ctypes.data % line
    return array[start : start + size]


def _burst(pool: ThreadPoolExecutor, threads: int, work: Callable[[int, int], float]) -> float:
    """Return work per second of all threads; work(thread, n) does n units and says how much."""
    n = 1
    while True:
        start = time.perf_counter()
        done = sum(pool.map(work, range(threads), [n] * threads))
        elapsed = time.perf_counter() - start
        if elapsed >= _BURST_SECONDS:
            return done / elapsed
        n *= 2 if elapsed > _BURST_SECONDS / 8 else 8


def _chain_seconds() -> float:
    """Return the latency of a multiplication, which is that of a fused multiply-add too.

    NumPy's product of an array is a chain: each factor waits for the product before it. Two
    lengths take the cost of the call itself out.
    """
    short, long = np.ones(1 << 12, np.float32), np.ones(1 << 14, np.float32)

    def least(array: np.ndarray) -> float:
        times = []
        for _ in range(20):
            start = time.perf_counter()
            np.multiply.reduce(array)
            times.append(time.perf_counter() - start)
        return min(times)

    return (least(long) - least(short)) / (long.size - short.size)
