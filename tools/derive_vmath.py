"""Derive the constants of csrc/simd/vmath.h.

The elementary functions rest on one kernel, 1 - e^-r = r - r^2 Q(r) for |r| <= ln(2) / 2. Q is a
polynomial, minimax in |r Q error|: relative error near zero, where tanh needs it, and absolute
error at the ends, where the sigmoid does. The coefficients are rounded to the dtype one by one
from the lowest; after each the rest are fitted again, so that they absorb its rounding.

    python tools/derive_vmath.py           prints the constants as they stand in the header
    python tools/derive_vmath.py --check   exits with 1 unless the header holds exactly these

Needs mpmath.
"""

from __future__ import annotations

import argparse
import re
import sys
from bisect import bisect
from pathlib import Path

from mpmath import cos, expm1, log, lu_solve, matrix, mp, mpf, pi, polyval

HEADER = Path(__file__).parent.parent / "csrc" / "simd" / "vmath.h"
GRID = 500
# dtype: degree of Q, bits of the significand
DTYPES = {"float": (4, 24), "double": (9, 53)}

mp.dps = 50


def rounded(x: mpf, bits: int) -> mpf:
    """Round x to the nearest number of `bits` significant bits (none of ours is subnormal)."""
    with mp.workprec(bits):
        return +x


def c_literal(x: mpf, bits: int) -> str:
    """Write x, exact in `bits` bits, as a C hexadecimal constant."""
    value = float(x)
    if mpf(value) != x:
        raise ValueError(f"{x} is not a double")
    mantissa, exponent = value.hex().split("p")
    mantissa = mantissa.rstrip("0").rstrip(".") if "." in mantissa else mantissa
    return f"{mantissa}p{int(exponent):+}" + ("f" if bits == 24 else "")


def target(r: mpf) -> mpf:
    """Q(r) = (r - (1 - e^-r)) / r^2, r not 0."""
    return (r + expm1(-r)) / r**2


def minimax(points: list[mpf], values: list[mpf], powers: range) -> list[mpf]:
    """Coefficients c minimising max |r (value - sum c_k r^k)| over the points, by Remez exchange.

    With r^first taken out of the sum this is a polynomial approximation with a weight of constant
    sign, so the sign that alternates is that of the error over r^first.
    """
    count = len(powers) + 1
    first = powers[0]
    weights = [abs(r) * (-1 if r < 0 else 1) ** first for r in points]
    last = len(points) - 1
    chosen = [round((1 - cos(pi * i / (count - 1))) / 2 * last) for i in range(count)]
    for _ in range(200):
        rows = matrix(count)
        right = matrix(count, 1)
        for i, at in enumerate(chosen):
            for j, k in enumerate(powers):
                rows[i, j] = weights[at] * points[at] ** k
            rows[i, count - 1] = (-1) ** i
            right[i] = weights[at] * values[at]
        solution = list(lu_solve(rows, right))
        coefficients, level = solution[:-1], solution[-1]
        error = [
            w * (v - r**first * polyval(coefficients[::-1], r))
            for w, r, v in zip(weights, points, values, strict=True)
        ]
        worst = max(range(len(points)), key=lambda i: abs(error[i]))
        if abs(error[worst]) <= abs(level) * (1 + mpf("1e-9")):
            return coefficients
        exchange(chosen, worst, error)
    raise ArithmeticError("the exchange does not end")


def exchange(chosen: list[int], new: int, error: list[mpf]) -> None:
    """Put `new` into the sorted places of alternating error, for the neighbour of its sign."""
    same = [(error[at] > 0) == (error[new] > 0) for at in chosen]
    after = bisect(chosen, new)
    if after > 0 and same[after - 1]:
        chosen[after - 1] = new
    elif after < len(chosen) and same[after]:
        chosen[after] = new
    elif after == 0:
        chosen[:] = [new, *chosen[:-1]]
    else:
        chosen[:] = [*chosen[1:], new]


def derive(degree: int, bits: int) -> tuple[list[mpf], mpf]:
    """Return the coefficients of Q in `bits` bits, lowest first, and the largest |r Q error|."""
    half = log(2) / 2 * (1 + mpf(2) ** -10)
    points = [half * cos(pi * (GRID - i) / GRID) for i in range(GRID + 1)]
    points = [r for r in points if abs(r) > half / GRID]
    rest = [target(r) for r in points]
    coefficients: list[mpf] = []
    for k in range(degree + 1):
        c = rounded(minimax(points, rest, range(k, degree + 1))[0], bits)
        coefficients.append(c)
        rest = [v - c * r**k for r, v in zip(points, rest, strict=True)]
    return coefficients, max(abs(r * v) for r, v in zip(points, rest, strict=True))


def constants(degree: int, bits: int) -> tuple[dict[str, str], mpf]:
    """Return names and C literals of one dtype, and the error of Q."""
    ln2_high = rounded(log(2), bits)
    coefficients, error = derive(degree, bits)
    values = {
        "VM_LOG2E": rounded(1 / log(2), bits),
        "VM_LN2_HI": ln2_high,
        "VM_LN2_LO": rounded(log(2) - ln2_high, bits),
        **{f"VM_Q{k}": c for k, c in enumerate(coefficients)},
    }
    return {name: c_literal(value, bits) for name, value in values.items()}, error


def in_header() -> list[tuple[str, str]]:
    """Read the constants from the header, those of float before those of double."""
    definition = re.compile(r"^#define (VM_(?:LOG2E|LN2_HI|LN2_LO|Q\d+)) +(\S+)$", re.MULTILINE)
    return definition.findall(HEADER.read_text(encoding="utf-8"))


def main() -> int:
    """Print the constants, or compare them with the header."""
    parser = argparse.ArgumentParser(description="Derive the constants of vmath.h.")
    parser.add_argument("--check", action="store_true", help="compare with the header")
    check = parser.parse_args().check
    expected: list[tuple[str, str]] = []
    for dtype, (degree, bits) in DTYPES.items():
        values, error = constants(degree, bits)
        expected += values.items()
        print(f"/* {dtype}: |r Q error| <= 2^{float(log(error, 2)):.2f} */")
        if not check:
            print("\n".join(f"#define {name:<9} {value}" for name, value in values.items()))
    if check and expected != in_header():
        for name, value in sorted(set(expected) ^ set(in_header())):
            print(f"differs: {name} {value}", file=sys.stderr)
        print(f"{HEADER.name} does not hold exactly the derived constants", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
