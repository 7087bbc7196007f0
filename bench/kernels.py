"""Whether the whole pipeline gives the committed bytes with the kernels of other processors."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml
from tests.kernels import usable_kernels

from bench.checkout import call, clone, environment
from bench.measuring import Row


def measure() -> list[Row]:
    """Return how many bytes of what DVC hashes differ between kernels."""
    found = {}
    with TemporaryDirectory() as folder:
        for name, variables in usable_kernels().items():
            checkout = Path(folder) / name
            clone(checkout)
            call(["dvc", "repro"], checkout, environment(checkout, **variables))
            found[name] = _outputs(checkout)
    first, *others = found.values()
    differing = {path: size for other in others for path, (md5, size) in other.items() if first[path][0] != md5}
    note = f"dvc repro with the kernels of {', '.join(found)}, {sum(size for _, size in first.values()):,} bytes each"
    names = f"; {', '.join(differing)}" if differing else ""
    return [Row("bytes that differ", float(sum(differing.values())), "bytes", target="ours <= 0", note=note + names)]


def _outputs(checkout: Path) -> dict[str, tuple[str, int]]:
    """Return checksum and size of each output."""
    lock: dict[str, Any] = yaml.safe_load((checkout / "dvc.lock").read_text(encoding="utf-8"))
    outs = [out for stage in lock["stages"].values() for out in stage["outs"]]
    return {out["path"]: (out["md5"], out["size"]) for out in outs}
