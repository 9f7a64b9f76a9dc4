"""A progress bar for the terminal, where the work takes longer than a second."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm import tqdm

Progress = Callable[[float, str], None]  # called with the share done and a message


@contextmanager
def progress_bar(title: str) -> Iterator[Progress]:
    """Give a function that takes the share done and a message, and shows both on standard error."""
    with tqdm(total=100, desc=title, unit="%", delay=1, file=sys.stderr, leave=False) as bar:

        def progress(share: float, message: str) -> None:
            bar.set_postfix_str(message, refresh=False)
            bar.update(round(100 * share) - bar.n)

        yield progress


def part_of(progress: Progress, start: float, stop: float, prefix: str = "") -> Progress:
    """Progress of a part that takes from `start` to `stop` of the whole."""

    def report_part(share: float, message: str) -> None:
        progress(start + share * (stop - start), prefix + message)

    return report_part
