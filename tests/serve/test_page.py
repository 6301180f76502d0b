"""The page in a browser: text streams, a picture of a class appears, a slider changes it, on a phone too."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from serve_runs import fresh_runs, serving

webdriver = pytest.importorskip("selenium.webdriver")
DRIVER, BROWSER = shutil.which("chromedriver"), shutil.which("chromium")
if DRIVER is None or BROWSER is None:
    pytest.skip("no chromium and chromedriver here", allow_module_level=True)
WRITER, TOLD = "text/writer", "digits/told"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    options = webdriver.ChromeOptions()
    options.binary_location = str(BROWSER)
    for word in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--window-size=1200,900",
    ):
        options.add_argument(word)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("page"))
        with serving(fresh_runs([WRITER, TOLD])) as (url, _):
            service = webdriver.ChromeService(str(DRIVER))
            browser = webdriver.Chrome(options=options, service=service)
            try:
                browser.get(url)
                yield browser
                assert browser.get_log("browser") == []
            finally:
                browser.quit()


def until(page: Any, script: str) -> Any:
    from selenium.webdriver.support.ui import WebDriverWait

    return WebDriverWait(page, 60, 0.05).until(lambda page: page.execute_script(f"return {script}"))


def pick(page: Any, element: str, value: str) -> None:
    until(page, f"document.getElementById('{element}')")
    page.execute_script(
        "const it = document.getElementById(arguments[0]); it.value = arguments[1];"
        "for (const kind of ['input', 'change']) it.dispatchEvent(new Event(kind, {bubbles: true}))",
        element, value,
    )  # fmt: skip


def first_picture(page: Any, other_than: str = "") -> str:
    picture, done = "document.querySelector('#gallery img')", "document.getElementById('status').textContent"
    fresh = f"({picture}?.src ?? '{other_than}') !== '{other_than}' && {done}.startsWith('done')"
    found: str = until(page, f"{fresh} && {picture}.src")
    return found


def test_text_streams_by_the_keyboard_alone(page: Any) -> None:
    from selenium.webdriver.common.keys import Keys

    pick(page, "run", WRITER)
    prompt = page.find_element("id", "c-prompt")
    prompt.send_keys("the cat", Keys.CONTROL, Keys.ENTER)
    until(page, "document.getElementById('status').textContent.startsWith('done')")
    assert page.find_element("css selector", "#gallery pre").text.startswith("the cat")


def test_a_picture_of_a_class_appears_and_a_slider_changes_it(page: Any) -> None:
    pick(page, "run", TOLD)
    pick(page, "c-class", "7")
    page.find_element("id", "go").click()
    before = first_picture(page)
    assert page.find_element("css selector", "#gallery figcaption span").text == "7"
    page.find_element("css selector", "[aria-label='Set Truncation']").click()
    after = first_picture(page, before)
    pick(page, "c-truncation", "0.1")
    assert first_picture(page, after) not in (before, after)


def test_nothing_sticks_out_at_the_width_of_a_phone_and_everything_has_a_name(page: Any) -> None:
    size = {"width": 360, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    for run in (WRITER, TOLD):
        pick(page, "run", run)
        assert page.execute_script("return document.documentElement.scrollWidth") <= 360
        nameless = page.execute_script(
            "return [...document.querySelectorAll('input, select, textarea')].filter(it => it.offsetParent &&"
            " !it.labels.length && !it.getAttribute('aria-label')).map(it => it.id)"
        )
        assert nameless == []


def test_the_page_is_one_file_that_fetches_nothing_from_elsewhere() -> None:
    import aigc_cli.serve.app as app

    text = Path(app.__file__).with_name("page.html").read_text()
    assert "http://" not in text
    assert "https://" not in text
    assert "src=" not in text.replace("src: source", "")
