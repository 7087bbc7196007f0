"""What LightGBM imports and the service never uses: a tenth of the memory that a worker starts with."""

import sys
from types import ModuleType
from typing import Any

UNUSED = ("dask", "matplotlib", "pandas", "sklearn")  # where they are installed
SPARSE = ("spmatrix", "csr_matrix", "csc_matrix")


def leave_out() -> None:
    """Let this process import LightGBM without them; to be called before it does, by one that needs none of them."""
    scipy, sparse = ModuleType("scipy"), ModuleType("scipy.sparse")
    vars(sparse).update({name: type(name, (), {}) for name in SPARSE})  # it asks what it is given whether it is one
    vars(scipy).update(sparse=sparse)
    modules: dict[str, Any] = {"scipy": scipy, "scipy.sparse": sparse, **dict.fromkeys(UNUSED)}
    sys.modules.update(modules)
