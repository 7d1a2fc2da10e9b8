"""Mutated layers by the million: each gives a valid adapter or a typed error. Prints how many gave what.

    nice python benchmarks/fuzz_codec.py --count 1000000

Half of the layers have their size and digest made right again, so that the parser behind the digest is what is tested.
Anything else than those results (a crash, another exception, a state that is not valid) ends it with a traceback that
names the seed and the block of mutations. The mutations are those of the test suite (tests/codec_mutation.py).
"""

from __future__ import annotations

import argparse
import os
import resource
import sys
import time
from collections import Counter
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from codec_mutation import Mutations

BLOCK = 20_000


def main() -> None:
    """Run and count."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1_000_000, help="mutated layers [1000000]")
    parser.add_argument("--seed", type=int, default=1, help="seed of the first block of 20000 [1]")
    options = parser.parse_args()
    total: Counter[str] = Counter()
    slowest_s = 0.0
    for block in range(-(-options.count // BLOCK)):
        started = time.process_time()
        count = min(BLOCK, options.count - block * BLOCK)
        try:
            total += Mutations(options.seed + block).run(count)
        except BaseException:
            print(f"failed in the block of seed {options.seed + block}", file=sys.stderr)
            raise
        slowest_s = max(slowest_s, time.process_time() - started)
    for name, found in total.most_common():
        print(f"{name}: {found}")
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{sum(total.values())} layers; slowest {BLOCK}: {slowest_s:.1f} s of CPU; peak memory {peak_mb:.0f} MB")


if __name__ == "__main__":
    main()
