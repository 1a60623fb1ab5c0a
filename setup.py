"""Build the one extension, swarm.kernels._native. Everything else is in pyproject.toml."""

import os
import platform
import sys
from glob import glob

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ARM = platform.machine().lower() in ("aarch64", "arm64") or "aarch64" in os.environ.get("_PYTHON_HOST_PLATFORM", "")
FLAGS = ["-O3", "-std=gnu11", "-fopenmp", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math", "-fvisibility=hidden", "-Wall", "-Wno-unused-function"]

HINT = """
swarm: the compiled kernels could not be built.
  Swarm needs a C compiler with OpenMP and Python's headers. On Debian, Ubuntu and Raspberry Pi OS:
      sudo apt install gcc libc6-dev python3-dev
  The compiler's own message is above.
"""


class Build(build_ext):
    """Compile in parallel, and say what to install when it does not work."""

    def run(self) -> None:
        try:
            super().run()
        except Exception:
            sys.stderr.write(HINT)
            raise


def sources() -> list[str]:
    other = "x86" if ARM else "arm"
    return ["csrc/_native.pyx"] + sorted(f for f in glob("csrc/*.c") if not f.endswith(("_native.c", f"_{other}.c")))


setup(
    ext_modules=[
        Extension(
            "swarm.kernels._native",
            sources(),
            include_dirs=["csrc"],
            depends=glob("csrc/*.h") + glob("csrc/*.inc") + glob("csrc/*.pxi"),
            extra_compile_args=FLAGS,
            extra_link_args=["-fopenmp", "-lm"],
        )
    ],
    cmdclass={"build_ext": Build},
)
