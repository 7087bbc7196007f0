"""The kernels of other processors, as far as this one can run them.

OpenBLAS and NumPy choose theirs when they are loaded, and glibc its exponentials; each can be told otherwise.
"""

from pathlib import Path

KERNELS = {
    # Of 2004: SSE3, and no fused multiply-add anywhere.
    "Prescott": {
        "OPENBLAS_CORETYPE": "Prescott",
        "NPY_DISABLE_CPU_FEATURES": "X86_V3 X86_V4 AVX512_ICL",
        "GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX2,-FMA",
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "POLARS_MAX_THREADS": "1",
    },
    "Haswell": {"OPENBLAS_CORETYPE": "Haswell", "NPY_DISABLE_CPU_FEATURES": "X86_V4 AVX512_ICL"},
    "SkylakeX": {"OPENBLAS_CORETYPE": "SkylakeX", "OMP_NUM_THREADS": "2", "OPENBLAS_NUM_THREADS": "2"},
}
"""Variables that make a process compute as on a processor with these kernels."""
NEEDS = {"Prescott": "pni", "Haswell": "fma", "SkylakeX": "avx512vl"}
"""The processor's flag without which a kernel cannot run."""


def usable_kernels() -> dict[str, dict[str, str]]:
    """Return those of `KERNELS` that this processor can run."""
    lines = Path("/proc/cpuinfo").read_text(encoding="ascii").splitlines()
    flags = next((line.split() for line in lines if line.startswith("flags")), [])
    return {name: variables for name, variables in KERNELS.items() if NEEDS[name] in flags}
