"""The pages in a real Chromium: with a script, on a phone, in the dark, by keyboard alone, and looked over by axe-core."""
from __future__ import annotations

import os
import re
import shutil

import pytest

from tests.conftest import messages, write_csv

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync"]
PAGES = ("/", "/start", "/people", "/bundles/inquiries", "/bundles/inquiries/try", "/desk/inquiries", "/desk/inquiries/all",
         "/desk/inquiries/add", "/sign-in", "/account", "/nothing-here")
ASKED = "xyzxyz qqq 1\nxyzxyz qqq 2\nxyzxyz qqq 3"


@pytest.fixture(scope="module")
def chromium():
    if CHROMIUM is None:
        if os.environ.get("MACHIKOBA_NEEDS_CHROMIUM"):
            pytest.fail("Chromium is not installed: apt-get install chromium")
        pytest.skip("Chromium is not installed")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def served(start, port):
    """The address of a server, and the link that its console shows."""
    process = start(env={"MACHIKOBA_LANG": "en"})
    return f"http://127.0.0.1:{port}", re.search(r"http://\S+/open\?key=\S+", process.console)[0]


@pytest.fixture
def tab(chromium, served):
    """A tab that came by the link; whatever its console says of errors fails the test."""
    context = chromium.new_context(viewport={"width": 1280, "height": 900}, locale="en-GB")
    page, told = context.new_page(), []
    page.on("console", lambda message: told.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: told.append(str(error)))
    page.goto(served[1])
    yield page
    context.close()
    assert [one for one in told if "404" not in one and "401" not in one] == []


def test_from_a_file_to_the_result_and_back(tab, served, tmp_path):
    base = served[0]
    file = write_csv(tmp_path / "受付.csv", messages(150))
    tab.goto(base + "/start")
    tab.set_input_files("#file", str(file))
    tab.get_by_role("button", name="Look at it").click()
    tab.wait_for_url("**/start/*")
    look = tab.url
    tab.fill("#name", "受付 2")
    tab.click("text=What will it cost?")
    tab.wait_for_url("**/cost")
    tab.go_back()
    assert tab.url == look
    assert tab.input_value("#name") == "受付 2", "what was chosen is still there after the back button"
    tab.click("text=What will it cost?")
    tab.click("text=Begin")
    tab.wait_for_url("**/work/*")
    work = tab.url
    tab.goto(base + "/")  # closed, and come back to
    if tab.locator("a[href^='/work/']").count():
        tab.click("a[href^='/work/']")
    else:
        tab.goto(work)
    tab.wait_for_selector("text=To the result", timeout=120_000)
    tab.click("text=To the result")
    assert tab.inner_text("h1") == "受付 2"
    tab.go_back()
    tab.go_back()
    tab.goto(look)
    assert tab.url == work, "the steps before lead on to the work"


def test_the_desk_by_keyboard_alone(tab, served):
    base = served[0]
    tab.goto(base + "/desk/inquiries/add")
    tab.fill("#texts", ASKED)
    tab.click("text=Sort them")
    tab.wait_for_selector("text=3 messages went to the desk")
    tab.goto(base + "/desk/inquiries")
    tab.wait_for_selector("text=3 messages wait")
    tab.keyboard.press("2")
    tab.wait_for_selector("text=2 messages wait")
    tab.keyboard.press("z")
    tab.wait_for_selector("text=3 messages wait")
    tab.keyboard.press("Enter" if tab.locator(".suggested").count() else "1")
    tab.wait_for_selector("text=2 messages wait")
    tab.keyboard.press(" ")
    tab.wait_for_selector("text=1 message waits")
    tab.keyboard.press("1")
    tab.wait_for_selector("text=Nothing waits")


def test_signed_out_at_the_desk_loses_nothing(tab, served):
    base = served[0]
    tab.goto(base + "/desk/inquiries/add")
    tab.fill("#texts", ASKED)
    tab.context.clear_cookies()
    tab.click("text=Sort them")
    tab.wait_for_selector("text=What you typed is not lost")
    assert tab.locator("input[name=kept_name][value=texts] + input[name=kept_value]").input_value() == ASKED


def looked_over(page, width):
    from axe_core_python.sync_playwright import Axe

    assert page.evaluate("document.documentElement.scrollWidth") <= width, f"{page.url} is wider than the window"
    found = [(one["id"], one["impact"], one["nodes"][0]["html"][:120]) for one in Axe().run(page)["violations"]
             if one["impact"] in ("serious", "critical")]
    assert found == [], page.url


@pytest.mark.parametrize(("width", "scheme", "language"), [
    (1280, "light", "ja"), (360, "dark", "en"), pytest.param(360, "light", "ja", marks=pytest.mark.slow),
    pytest.param(1280, "dark", "en", marks=pytest.mark.slow)])
def test_axe_finds_nothing_serious_and_nothing_is_cut_off(chromium, served, tab, tmp_path, width, scheme, language):
    base, link = served
    tab.goto(base + "/desk/inquiries/add")
    tab.fill("#texts", ASKED)
    tab.click("text=Sort them")
    context = chromium.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme, bypass_csp=True,
                                   locale={"ja": "ja-JP", "en": "en-GB"}[language])
    page = context.new_page()
    page.goto(link)
    page.set_default_timeout(60_000)
    page.goto(base + "/start")
    page.set_input_files("#file", str(write_csv(tmp_path / "a.csv", messages(60))))
    page.click("main form button")
    page.wait_for_url("**/start/*")
    looked_over(page, width)
    page.locator("form.card button").click()
    page.wait_for_url("**/cost")
    looked_over(page, width)
    page.locator("main form button").click()
    page.wait_for_url("**/work/*")
    for path in (page.url.removeprefix(base), *PAGES):
        page.goto(base + path)
        looked_over(page, width)
    context.close()


def test_without_a_script(chromium, served, tmp_path):
    context = chromium.new_context(java_script_enabled=False, locale="ja-JP")
    page = context.new_page()
    page.goto(served[1])
    page.goto(served[0] + "/desk/inquiries/add")
    page.fill("#texts", ASKED)
    page.click("main form button")
    page.goto(served[0] + "/desk/inquiries")
    for left in ("2通", "1通"):
        page.click(".kinds button >> nth=0")
        page.wait_for_selector(f"text=待っている問い合わせ {left}")
    page.set_default_timeout(60_000)
    page.goto(served[0] + "/start")
    page.set_input_files("#file", str(write_csv(tmp_path / "a.csv", messages(60))))
    page.click("main form button")
    assert page.inner_text("h1") == "a.csv"
    context.close()


def test_a_file_dropped_on_the_page(tab, served):
    tab.goto(served[0] + "/start")
    tab.evaluate("""(text) => {
        const data = new DataTransfer();
        data.items.add(new File([text], "落とした.csv", { type: "text/csv" }));
        const drop = new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true });
        document.querySelector(".drop").dispatchEvent(drop);
    }""", "text,label\n" + "\n".join(f"{text},{label}" for text, label in messages(60)))
    tab.wait_for_url("**/start/*")
    assert tab.inner_text("h1") == "落とした.csv"


def test_messages_without_kinds_are_sorted_by_keyboard(chromium, served, tab, tmp_path):
    base, link = served
    file = tmp_path / "受付.csv"
    file.write_text("本文\n" + "".join(f"{text}\n" for text, _kind in messages(60)), encoding="utf-8")
    context = chromium.new_context(viewport={"width": 360, "height": 800}, bypass_csp=True, locale="en-GB")
    page = context.new_page()
    page.set_default_timeout(60_000)
    page.goto(link)
    page.goto(base + "/start")
    page.set_input_files("#file", str(file))
    page.click("main form button")
    page.click("text=Sort them here")
    page.click("text=Begin to sort", timeout=120_000)
    page.wait_for_url("**/kinds")
    looked_over(page, 360)
    first, second = page.locator(".proposal").nth(0), page.locator(".proposal").nth(1)
    first.locator("input[type=checkbox]").check()
    first.locator("input:not([type])").fill("one")
    second.locator("input[type=checkbox]").check()
    page.click("text=Take these over and sort")
    page.wait_for_selector("text=0 messages sorted")
    for n, key in enumerate("1212121", 1):
        page.keyboard.press(key)
        page.wait_for_selector(f"text=/^{n} messages? sorted/")
    page.keyboard.press("z")
    page.wait_for_selector("text=6 messages sorted")
    page.keyboard.press("-")
    page.wait_for_selector("text=7 messages sorted")
    passed = page.inner_text(".message")
    page.keyboard.press(" ")
    page.wait_for_function("before => document.querySelector('.message').innerText !== before", arg=passed)
    page.fill("#new", "parking")
    page.keyboard.press("Enter")
    page.wait_for_selector("text=8 messages sorted")
    assert page.locator(".kinds button").count() == 3
    looked_over(page, 360)
    page.locator(".kinds").scroll_into_view_if_needed()
    page.goto(page.url + "/kinds")
    looked_over(page, 360)
    page.locator(".plainlist a").first.click()
    looked_over(page, 360)
    context.close()
