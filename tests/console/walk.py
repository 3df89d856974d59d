"""A user's first visit, click by click: uploads a table, trains, watches it end, predicts, downloads, and sees a db node die.

walk.py URL TABLE.csv PID-OF-A-DB-NODE DIRECTORY-FOR-SCREENSHOTS
"""

import os
import pathlib
import shutil
import signal
import sys
import time
import urllib.request

from axe_selenium_python import Axe
from selenium import webdriver
from selenium.common.exceptions import NoSuchElementException, StaleElementReferenceException
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

url, table, victim, shots = sys.argv[1], pathlib.Path(sys.argv[2]).resolve(), int(sys.argv[3]), pathlib.Path(sys.argv[4])
shots.mkdir(parents=True, exist_ok=True)


def browser(scheme):
    options = webdriver.ChromeOptions()
    for word in ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--window-size=1280,1400"]:
        options.add_argument(word)
    if scheme == "dark":
        options.add_argument("--force-dark-mode")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    return webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))


def until(what, seconds=60):
    """Tries `what` until it is so. A page that renews itself may take an element away between its finding and its use."""
    gone = [NoSuchElementException, StaleElementReferenceException]
    return WebDriverWait(page, seconds, ignored_exceptions=gone).until(lambda _: what())


def text():
    return page.find_element(By.TAG_NAME, "main").text


def drawn(what):
    return page.execute_script("return arguments[0].naturalWidth", page.find_element(By.CSS_SELECTOR, what)) > 100


def seen(name):
    """Keeps a picture, and looks at what a reader with other senses than eyes would meet, and what the browser complains of."""
    page.save_screenshot(shots / f"{name}.png")
    page.set_script_timeout(60)
    axe = Axe(page)
    # Straight into the page: its policy, rightly, refuses scripts from elsewhere.
    page.execute_cdp_cmd("Runtime.evaluate", {"expression": pathlib.Path(axe.script_url).read_text()})
    result = axe.run(options={"runOnly": ["wcag2a", "wcag2aa"]})
    if result["violations"]:
        sys.exit(f"{name} is hard to use without eyes or hands: {axe.report(result['violations'])}")
    complaints = [entry for entry in page.get_log("browser") if entry["level"] == "SEVERE"]
    if complaints:
        sys.exit(f"{name}: the browser complains: {complaints}")
    print(f"{name}: well")


def click(by, what):
    """One click of the reader's, on something that a page may just be drawing anew."""
    global clicks
    clicks += 1
    until(lambda: page.find_element(by, what).click() or True)


deadline = time.time() + 60
while True:
    try:
        urllib.request.urlopen(f"{url}/readyz", timeout=2)
        break
    except OSError:
        if time.time() > deadline:
            sys.exit("the worker does not get ready")
        time.sleep(0.2)

clicks = 0
page = browser("light")
page.get(url)
until(lambda: "Nothing is here yet" in text())
until(lambda: "2 of 2 db nodes answer" in text())
seen("empty")

# The picker of files is two clicks: to open it, and to choose.
clicks += 2
page.find_element(By.ID, "file").send_keys(str(table))
until(lambda: "/datasets/" in page.current_url)
until(lambda: "344 rows" in text())
seen("dataset")
dataset = page.current_url

click(By.XPATH, "//tr[td[1]='species']//a")
until(lambda: "Start training" in text())
seen("train")
click(By.XPATH, "//main//button[normalize-space()='Start training']")
until(lambda: "/trainings/" in page.current_url)
assert clicks <= 6, f"{clicks} clicks from the first page to a training"
print(f"{clicks} clicks from the first page to a training")

# It ends before the reader's eyes, without reloading.
page.execute_script("window.same = true")
until(lambda: text().count("done") >= 6, 120)
assert page.execute_script("return window.same"), "the page was loaded anew"
seen("training")

click(By.CSS_SELECTOR, "tbody a")
until(lambda: "Which columns matter" in text())
until(lambda: drawn("img.plot"))
seen("model")
model = page.current_url
for format in ["native", "onnx", "json"]:
    link = page.find_element(By.CSS_SELECTOR, f"a[href$='download?format={format}']").get_attribute("href")
    assert len(urllib.request.urlopen(link).read()) > 100, link

click(By.XPATH, "//form[@id='try']//button")
until(lambda: page.find_element(By.CSS_SELECTOR, ".answer td").text == "Adelie")
seen("tried")

click(By.XPATH, "//form[@action='predictions']//button")
until(lambda: "done" in text() and "Adelie," in text())
seen("prediction")

page.get(dataset)
click(By.XPATH, "//tr[td[1]='species']//a")
click(By.PARTIAL_LINK_TEXT, "search for the best")
until(lambda: "Start searching" in text())
seen("tune")
page.find_element(By.NAME, "trials").send_keys("12")
click(By.XPATH, "//main//button[normalize-space()='Start searching']")
until(lambda: "/studies/" in page.current_url)
page.execute_script("window.same = true")
until(lambda: "The best of them are kept" in text(), 120)
assert page.execute_script("return window.same"), "the page was loaded anew"
until(lambda: drawn("img.plot"))
seen("study")

for name in ["", "datasets", "trainings", "studies", "models", "predictions", "jobs", "logs"]:
    page.get(f"{url}/{name}")
    seen(name or "overview")

page.get(f"{url}/cluster")
until(lambda: text().count("active") >= 3)
os.kill(victim, signal.SIGKILL)
until(lambda: "No answer from 1 of 2 db nodes" in text(), 30)
seen("cluster")
page.get(dataset)
until(lambda: "344 rows" in text())
page.get(f"{url}/datasets/no-such-thing")
until(lambda: "there is no dataset" in text())
page.get_log("browser")
page.quit()

page = browser("dark")
for name, address in [("dark-overview", url), ("dark-model", model)]:
    page.get(address)
    seen(name)
page.quit()
