"""The pictures docs/img/desk.png, sort.png and their Japanese twins, from a server on the sample town.

    python tools/screenshots.py     about two minutes; needs Debian's chromium, and the bundle of `make demo`
"""
from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from machikoba.records.read import read

ROOT = Path(__file__).resolve().parent.parent
IMAGES, DEMO = ROOT / "docs" / "img", ROOT / ".machikoba" / "demo.bundle"
SAMPLE = ROOT / "sample" / "問い合わせ.xlsx"
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
# Invented, as the sample town is.
MESSAGES = ("犬を連れて泊まれる部屋はありますか？", "チェックアウトのあと、荷物を夕方まで預かってもらえますか。",
            "来月の第2土曜、大人2人で空いていますか")


def main() -> None:
    if not DEMO.exists():
        sys.exit(f"{DEMO} is missing: make demo")
    with tempfile.TemporaryDirectory() as folder, socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        home = Path(folder) / "home"
        shutil.copytree(DEMO, home / "bundles" / "湊屋.bundle")
        server = subprocess.Popen(
            [sys.executable, "-m", "machikoba", "serve", "--port", str(port), "--business", "湊屋"],
            env=os.environ | {"MACHIKOBA_HOME": str(home), "MACHIKOBA_LANG": "en", "PYTHONUNBUFFERED": "1"},
            stdout=subprocess.PIPE, text=True)
        try:
            assert server.stdout is not None
            link = next(found[0] for line in server.stdout if (found := re.search(r"http://\S+/open\?key=\S+", line)))
            _shoot(link)
        finally:
            server.terminate()
            server.wait()


def _shoot(link: str) -> None:
    base = link.partition("/open")[0]
    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        for ending, locale in (("", "en-GB"), (".ja", "ja-JP")):
            page = browser.new_context(viewport={"width": 1000, "height": 760}, locale=locale).new_page()
            page.set_default_timeout(180_000)  # the first answer waits for the open model to be read
            page.goto(link)
            if not ending:
                _put_in(page, base)
                sorting = _begin_to_sort(page, base)
            page.goto(f"{base}/desk/湊屋")
            page.screenshot(path=IMAGES / f"desk{ending}.png")
            page.goto(sorting)
            page.screenshot(path=IMAGES / f"sort{ending}.png")
        browser.close()


def _put_in(page: Page, base: str) -> None:
    page.goto(f"{base}/desk/湊屋/add")
    page.fill("#texts", "\n".join(MESSAGES))
    page.click("main form button")
    page.wait_for_selector("[role=status]")


def _begin_to_sort(page: Page, base: str) -> str:
    """A sorting of the sample's messages without their kinds, thirty of them sorted; its address."""
    rows = list(read(SAMPLE).examples)
    kinds = {row.text: row.label for row in rows}
    page.goto(f"{base}/start")
    page.set_input_files("#file", {"name": "問い合わせ.csv", "mimeType": "text/csv", "buffer": "\n".join(
        ["本文", *('"' + row.original.replace('"', '""') + '"' for row in rows)]).encode()})
    page.click("main form button")
    page.click("form[action$='/sort'] button")
    page.click("a[href^='/sort/']")
    page.wait_for_url("**/kinds")
    page.fill("#name", str(rows[0].label))
    page.click("form:has(#name) button")
    page.goto(page.url.removesuffix("/kinds"))
    for _turn in range(30):
        kind = str(kinds[page.inner_text(".message")])
        known = page.locator(".kinds button", has_text=kind)
        sorted_ = page.inner_text("#desk > p.small")
        if known.count():
            known.first.click()
        else:
            page.fill("#new", kind)
            page.press("#new", "Enter")
        page.wait_for_function("before => document.querySelector('#desk > p.small').innerText !== before", arg=sorted_)
    return page.url


if __name__ == "__main__":
    main()
