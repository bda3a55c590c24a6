"""Parity with references: do our models compute what independent implementations computed?

    python -m ipsrec_bench.testing.reference FILE...

prints, for every file and every output in it, the largest error, and exits with 1 if any exceeds 1e-5 (or is not a
number), else with 2 if a file cannot be used. A file is in safetensors format. Its metadata give sizes and settings
(`d, items, providers, max_length, layers, heads, inner` and those of its model); its tensors are

- `in/*`, such as `in/items` `[B, max_length]` (padded with 0 on the right), `in/length`, `in/user`, `in/target` `[B]`;
- `weight/*` under the reference's own names, which the files of `testing/references` map to ours;
- `out/*`, such as `user_vectors`, `scores` (column 0 = padding class) and losses.

Outputs are computed by the code that trains and ranks: `encode`, `item_vectors` and the tasks of training.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import ValidationError
from torch import Tensor

from ipsrec_bench.errors import BenchError, ModelError, listed
from ipsrec_bench.testing.references import REFERENCES
from ipsrec_bench.testing.references.api import ReferenceFile

TOLERANCE = 1e-5
"""Largest error in float32 that counts as equal."""
RELATIVE_FROM = 10.0
"""Magnitude of an output above which errors are relative to it, because float32 rounds relative to magnitude."""


@dataclass(frozen=True)
class OutputDifference:
    """How far one output of a model is from the same output of its reference."""

    output: str
    error: float
    """Largest difference: absolute, or relative to the largest magnitude of the output if that is above
    `RELATIVE_FROM`. NaN if either side has NaN, or if ours is missing or of another size."""

    @property
    def equal(self) -> bool:
        """Whether the error is within the tolerance."""
        return self.error <= TOLERANCE


def compare(path: Path) -> tuple[str, list[OutputDifference]]:
    """Return the model for which the file at `path` is a reference, and the error of each output in it.

    Raises:
        ModelError: the file does not have the format that this module describes.
    """
    file = ReferenceFile.read(path)
    reference = next((one for one in REFERENCES if one.matches(file)), None)
    if reference is None:
        known = listed(one.model for one in REFERENCES)
        raise ModelError(f"{path}: its content matches no known reference; known: {known}")
    if not file.expected:
        raise ModelError(f"{path}: the file has no output ('out/...') to compare with")
    try:
        with torch.no_grad():
            found = reference.compute(file)
    except KeyError as error:
        raise ModelError(f"{path}: the file lacks {error}, which a reference of {reference.model} needs") from None
    except (RuntimeError, IndexError, ValidationError) as error:  # weights, ids or sizes that do not fit each other
        raise ModelError(f"{path}: its content does not fit {reference.model}: {error}") from None
    return reference.model, [
        OutputDifference(name, _error(found.get(name), tensor)) for name, tensor in file.expected.items()
    ]


def main(arguments: Sequence[str]) -> int:
    """Compare every file named in `arguments`, print what was found, and return the exit code."""
    if not arguments or arguments[0].startswith("-"):
        print("usage: python -m ipsrec_bench.testing.reference FILE...", file=sys.stderr)
        return 0 if arguments and arguments[0] in {"-h", "--help"} else 2
    failed = unusable = False
    for path in map(Path, arguments):
        try:
            model, comparisons = compare(path)
        except BenchError as error:
            print(f"error: {error}", file=sys.stderr)
            unusable = True
            continue
        print(f"{path}: {model}")
        for comparison in comparisons:
            verdict = "ok" if comparison.equal else f"exceeds {TOLERANCE:g}"
            print(f"  {comparison.output:<34} {comparison.error:9.2e}  {verdict}")
        failed |= not all(comparison.equal for comparison in comparisons)
    return 1 if failed else 2 if unusable else 0


def _error(found: Tensor | None, expected: Tensor) -> float:
    """Return the largest difference; NaN if there is nothing to compare."""
    if found is None or found.numel() != expected.numel():
        return float("nan")
    largest = float(expected.abs().max())
    scale = largest if largest > RELATIVE_FROM else 1.0
    return float((found.reshape(expected.shape) - expected).abs().max()) / scale


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
