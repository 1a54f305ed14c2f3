"""One worker's loop in a process of its own: ``python alone.py ROWS``. For every line that it reads it makes
one call, as `encrypt/warm` does, answers with its nanoseconds, then opens and compares what it sent."""

from __future__ import annotations

import gc
import sys
from time import perf_counter_ns

from linked import link


def main() -> None:
    pair = link(int(sys.argv[1]))
    gc.disable()
    print("ready", flush=True)
    for _ in sys.stdin:
        begin = perf_counter_ns()
        sent = pair.send()
        print(perf_counter_ns() - begin, flush=True)
        pair.check(pair.open_sent(sent))
        print("checked", flush=True)
    pair.close()


if __name__ == "__main__":
    main()
