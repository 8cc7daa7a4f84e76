"""Builds fastrnn._core: the Cython face over every C file of csrc.

Which instructions each file may use stands in the C sources, so this list of files and one set of
flags is the whole build. A wheel is for one version of Python: the stable ABI costs a seventh of
the time of a small step. FASTRNN_CFLAGS adds compiler flags, for instance those of a sanitizer.
"""

import os
import shlex
import sys
from glob import glob

from Cython.Build import cythonize
from setuptools import Extension, setup

SOURCES = sorted(glob("csrc/*.c") + glob("csrc/simd/*.c"))
HEADERS = sorted(glob("csrc/**/*.h", recursive=True) + glob("csrc/**/*.def", recursive=True))
# -g0: Python adds -g, which would triple the wheel
FLAGS = ["-std=c11", "-O3", "-ffp-contract=off", "-fvisibility=hidden", "-g0"]
if sys.platform == "win32":
    FLAGS = ["/O2", "/std:c11", "/fp:precise"]

core = Extension(
    "fastrnn._core",
    sources=["fastrnn/_core.pyx", *SOURCES],
    depends=HEADERS,
    include_dirs=["csrc"],
    extra_compile_args=FLAGS + shlex.split(os.environ.get("FASTRNN_CFLAGS", "")),
    extra_link_args=shlex.split(os.environ.get("FASTRNN_LDFLAGS", "")),
)

setup(
    ext_modules=cythonize([core], compiler_directives={"language_level": 3}),
)
