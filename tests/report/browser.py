"""Open a page in headless Chromium and read back what it drew."""

from __future__ import annotations

import html
import re
import shutil
import subprocess
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome")


def browser() -> str | None:
    """Return the path of a Chromium, or None."""
    return next((found for name in NAMES if (found := shutil.which(name))), None)


def opened(page: Path, profile: Path) -> tuple[str, str]:
    """Return (the page's elements after its scripts ran, what the console said)."""
    done = subprocess.run(
        [
            str(browser()),
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            f"--user-data-dir={profile}",
            "--enable-logging=stderr",
            "--v=0",
            "--virtual-time-budget=20000",
            "--dump-dom",
            page.absolute().as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return done.stdout, "\n".join(console)


def drawn(dom: str) -> dict[str, int]:
    """Return, for each plot of a page, how many drawn traces it holds."""
    found = {}
    for part in re.split(r'<div class="plot[ "](?!-)', dom)[1:]:
        name = re.search(r'id="(plot\d+)"', part)
        if name:
            body = part.split("</figure>")[0]
            found[name[1]] = len(re.findall(r'class="(?:trace |point)', body))
    return found


def unescape(text: str) -> str:
    """Return text without entities."""
    return html.unescape(text)
