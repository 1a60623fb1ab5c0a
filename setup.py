"""Build the extensions: the kernels, and what every message passes. Everything else is in pyproject.toml."""

import os
import platform
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from glob import glob
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.modified import newer_group

ARM = platform.machine().lower() in ("aarch64", "arm64") or "aarch64" in os.environ.get("_PYTHON_HOST_PLATFORM", "")
# No contraction, so that every instruction set computes the same bits; no -march, so that one build runs everywhere.
FLAGS = ["-O3", "-std=gnu11", "-fopenmp", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math"]
FLAGS += ["-fvisibility=hidden", "-Wall", "-Wno-unused-function"]
# Of a sanitizer, for tools/sanitize.py; the kernels of instruction sets would take an hour to compile with it.
SANITIZER = os.environ.get("SWARM_C_FLAGS", "").split()

# One wheel for Python 3.11 and all newer ones, as tools/wheels.py builds it. What is built for one Python alone calls
# Python's functions more directly; LOG.md says how little that makes.
ABI3 = bool(os.environ.get("SWARM_ABI3"))
LIMITED = [("Py_LIMITED_API", "0x030B0000")] if ABI3 else []

FOR_ONE_SET = re.compile(r"_(x86|arm)\.c$")

HINT = """
swarm: the compiled kernels could not be built; the compiler's own message is above.
  Swarm needs a C compiler with OpenMP and Python's headers. On Debian, Ubuntu and Raspberry Pi OS:
      sudo apt install gcc libc6-dev python3-dev
"""


class Build(build_ext):
    """Compile the C files side by side, only what changed, and say what to install when it does not work."""

    def run(self) -> None:
        try:
            super().run()
        except BaseException:  # distutils reports a failed compiler with SystemExit in some versions
            sys.stderr.write(HINT)
            raise

    def build_extension(self, ext: Extension) -> None:
        c_files = [source for source in ext.sources if source.endswith(".c")]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            objects = list(pool.map(lambda c_file: self.compile_if_changed(ext, c_file), c_files))
        ext.sources = [source for source in ext.sources if source not in c_files]
        ext.extra_objects = [*ext.extra_objects, *objects]
        ext.depends = [*ext.depends, *objects]  # link again when one of them is new
        super().build_extension(ext)

    def compile_if_changed(self, ext: Extension, c_file: str) -> str:
        """The object file of one C file."""
        (target,) = self.compiler.object_filenames([c_file], output_dir=self.build_temp)
        if self.force or newer_group(["setup.py", *with_headers(c_file)], target):
            self.compiler.compile(
                [c_file],
                output_dir=self.build_temp,
                include_dirs=ext.include_dirs,
                extra_postargs=[*ext.extra_compile_args, *([] if FOR_ONE_SET.search(c_file) else SANITIZER)],
            )
        return target


def with_headers(c_file: str, seen: tuple[str, ...] = ()) -> tuple[str, ...]:
    """A file of csrc with what it includes of csrc, and what that includes."""
    seen = (*seen, c_file)
    for name in re.findall(r'^\s*#include "(.+)"', Path(c_file).read_text(), re.MULTILINE):
        header = str(Path(c_file).with_name(name))
        if header not in seen and Path(header).exists():
            seen = with_headers(header, seen)
    return seen


def sources() -> list[str]:
    other = "x86" if ARM else "arm"
    return ["csrc/_native.pyx", *sorted(f for f in glob("csrc/[!_]*.c") if not f.endswith(f"_{other}.c"))]


def headers() -> list[str]:
    return [f for pattern in ("*.h", "*.inc", "*.pxi") for f in sorted(glob(f"csrc/{pattern}"))]


setup(
    ext_modules=[
        Extension(
            "swarm.kernels._native",
            sources(),
            include_dirs=["csrc"],
            depends=["setup.py", *headers()],
            extra_compile_args=FLAGS,
            extra_link_args=["-fopenmp", "-lm", *SANITIZER],
            define_macros=LIMITED,
            py_limited_api=ABI3,
        ),
        *(
            Extension(
                name,
                [f"csrc/{name.rpartition('.')[2]}.pyx"],
                depends=["setup.py"],
                extra_compile_args=["-O2", *SANITIZER],
                extra_link_args=SANITIZER,
                define_macros=LIMITED,
                py_limited_api=ABI3,
            )
            for name in ("swarm.net._frames",)
        ),
    ],
    cmdclass={"build_ext": Build},
    options={"bdist_wheel": {"py_limited_api": "cp311"}} if ABI3 else {},
)
