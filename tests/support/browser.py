"""Pages as a browser has them, after their scripts have run."""

from __future__ import annotations

import shutil
import subprocess
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import pytest


class Drawn(HTMLParser):
    """Counts marks by chart, and gathers the text."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        chart = dict(attrs).get("data-chart")
        if chart is not None:
            self.counts[chart] += 1

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def browse(page: Path) -> Drawn:
    """The page's elements as a browser has them; nothing may be wrong on its console."""
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    browser = next((found for name in names if (found := shutil.which(name))), None)
    if browser is None:
        pytest.skip("no Chromium to open the page in")
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--v=0"]
    command += [f"--user-data-dir={page.parent / 'profile'}", "--dump-dom", page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert [line for line in done.stderr.splitlines() if "CONSOLE" in line] == []
    drawn = Drawn()
    drawn.feed(done.stdout)
    return drawn
