"""Checks a booster's text before LightGBM reads it, which trusts what it reads.

Checksums detect damage, not forgery: whoever can write a model can write its checksum, too. A split that is its own
ancestor would hang a request for ever; a feature, a child or a count out of range would read foreign memory.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from upkeep.core.types import Ints

DEEPEST = 500  # splits above a leaf; the time and memory that reasons take grow with their square
LARGEST_VALUE = 1e6  # what one leaf may add to the log-odds; beyond a thousand every probability is 0 or 1 anyway
MISSING = (0, 2, 4, 6, 8, 10)
"""LightGBM's bits for what counts as missing and where it goes; the lowest bit says that a split is by category."""

HEADER = re.compile(
    r"tree\nversion=v\d\nnum_class=1\nnum_tree_per_iteration=1\nlabel_index=0\nmax_feature_idx=(?P<last>\d{1,9})\n"
    r"objective=binary[\w.: ]*\n(?:average_output\n)?feature_names=(?P<names>[^\x00-\x1f]*)\n"
    r"(?:monotone_constraints=[-\d ]*\n)?feature_infos=[^\x00-\x1f]*\ntree_sizes=(?P<sizes>[\d ]+)\n\n",
    re.ASCII,
)
INTEGERS, REALS = r"[-\d ]*", r"[-+.einf\d ]*"  # a threshold may be infinite, nothing may be NaN
FIELDS = {
    "split_feature": INTEGERS,
    "split_gain": REALS,
    "threshold": REALS,
    "decision_type": INTEGERS,
    "left_child": INTEGERS,
    "right_child": INTEGERS,
    "leaf_value": REALS,
    "leaf_weight": REALS,
    "leaf_count": INTEGERS,
    "internal_value": REALS,
    "internal_weight": REALS,
    "internal_count": INTEGERS,
}
OF_LEAVES = ("leaf_value", "leaf_weight", "leaf_count")
TREE = re.compile(
    r"Tree=\d+\nnum_leaves=(?P<leaves>\d{1,7})\nnum_cat=(?P<sets>\d{1,7})\n"
    + "".join(f"{name}=(?P<{name}>{numbers})\n" for name, numbers in FIELDS.items())
    + rf"(?:cat_boundaries=(?P<starts>{INTEGERS})\ncat_threshold=(?P<words>{INTEGERS})\n)?"
    + r"is_linear=0\nshrinkage=[-+.e\d]+\n\n\n",
    re.ASCII,
)
FOOTER = re.compile(
    r"end of trees\n\nfeature_importances:\n(?:[^\x00-\x1f]+=\d+\n)*"
    r"\nparameters:\n(?:\[\w+: [^\x00-\x1f]*\]\n)*\nend of parameters\n\npandas_categorical:null\n?",
    re.ASCII,
)


def check_trees(text: str, features: Sequence[str]) -> None:
    """Raise a ValueError that says what is wrong with a booster of these features, if anything is.

    Anything that is not laid out as LightGBM writes it is refused, and so are linear leaves, which cannot be explained.
    """
    trees = _split_text(text, features)
    leaves = np.array([int(tree["leaves"]) for tree in trees])
    numbers = {name: _read_field(trees, name, leaves) for name in FIELDS}
    _check_links(leaves, numbers)
    feature, kind, threshold = (numbers[name] for name in ("split_feature", "decision_type", "threshold"))
    _require_all((feature >= 0) & (feature < len(features)), "a split by no feature")
    _require_all(np.isin(kind & ~1, MISSING), "a split of an unknown kind")
    sets = np.repeat([_count_sets(tree) for tree in trees], leaves - 1)
    _require_all((kind % 2 == 0) | ((threshold >= 0) & (threshold < sets)), "a split by categories that there are not")
    _require_all(np.abs(numbers["leaf_value"]) <= LARGEST_VALUE, f"a leaf beyond {LARGEST_VALUE:g}")


def _split_text(text: str, features: Sequence[str]) -> list[re.Match[str]]:
    header = HEADER.match(text)
    if header is None:
        raise ValueError("it does not begin as LightGBM's trees of two classes do")
    named = header["names"].split(" ")
    if named != list(features) or int(header["last"]) != len(features) - 1:
        other = next((name for name in named if name not in features), "the same in another order")
        raise ValueError(f"it takes other features than the metadata says, such as {other}")
    trees, end = [], header.end()
    while tree := TREE.match(text, end):
        trees.append(tree)
        end = tree.end()
    # LightGBM looks for each tree where these sizes say, wherever it begins here.
    sizes = [len(tree[0].encode()) for tree in trees]
    if header["sizes"] != " ".join(map(str, sizes)) or not FOOTER.fullmatch(text, end):
        raise ValueError(f"after {len(trees)} trees it goes on otherwise than LightGBM writes")
    return trees


def _read_field(trees: Sequence[re.Match[str]], name: str, leaves: Ints) -> NDArray[Any]:
    """Return one field of all trees' leaves or splits, one tree after the other."""
    expected = leaves if name in OF_LEAVES else leaves - 1
    if name == "leaf_weight":
        expected = np.where(leaves > 1, leaves, 0)
    lines = [tree[name] for tree in trees]
    found = np.array([line.count(" ") + bool(line) for line in lines])
    numbers = _parse(" ".join(filter(None, lines)), FIELDS[name])
    is_whole = (found == expected).all() and numbers.size == expected.sum()
    _require_all(is_whole, f"another number of {name} than of leaves")
    return numbers


def _parse(line: str, numbers: str) -> NDArray[Any]:
    return np.fromstring(line, sep=" ", dtype=np.int64 if numbers == INTEGERS else np.float64)


def _count_sets(tree: re.Match[str]) -> int:
    """Return how many sets of categories a tree has for its splits; each is a bit set of one or more words."""
    sets = int(tree["sets"])
    if sets or tree["starts"]:
        starts, words = (_parse(tree[name] or "", INTEGERS) for name in ("starts", "words"))
        fits = starts.size == sets + 1 and starts[0] == 0 and starts[-1] == words.size and (np.diff(starts) > 0).all()
        _require_all(fits, "sets of categories that do not fit")
    return sets


def _check_links(leaves: Ints, numbers: Mapping[str, NDArray[Any]]) -> None:
    """Raise unless each split but the first and each leaf of a tree has one parent, and counts add up.

    LightGBM numbers splits as it makes them, so where each child comes after its parent there is no cycle.
    """
    splits = leaves - 1
    tree = np.repeat(np.arange(leaves.size), splits)
    first_split, first_leaf = np.cumsum(splits) - splits, np.cumsum(leaves) - leaves
    children = np.stack([numbers["left_child"], numbers["right_child"]])
    own, is_split = np.arange(tree.size), children >= 0
    _require_all(np.where(is_split, children < splits[tree], ~children < leaves[tree]), "a child that there is not")
    # Splits of all trees first, then their leaves.
    node = np.where(is_split, children + first_split[tree], ~children + first_leaf[tree] + tree.size)
    _require_all(np.where(is_split, node > own, True), "a split below itself")
    _require_all(np.bincount(node.ravel(), minlength=1) <= 1, "a node with two parents")
    counts = np.concatenate([numbers["internal_count"], numbers["leaf_count"]])
    _require_all((counts >= (np.arange(counts.size) < tree.size)) & (counts < 2**31), "a count out of range")
    _require_all(counts[node].sum(axis=0) == counts[: tree.size], "counts that do not add up")
    level = first_split[splits > 0]
    for _ in range(DEEPEST):
        below = node[:, level].ravel()
        level = below[below < tree.size]
    _require_all(level.size == 0, f"more than {DEEPEST} splits above a leaf")


def _require_all(holds: ArrayLike, otherwise: str) -> None:
    if not np.all(holds):
        raise ValueError(f"it holds {otherwise}")
