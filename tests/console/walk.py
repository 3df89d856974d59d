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
    return WebDriverWait(page, seconds).until(lambda _: what())


def text():
    return page.find_element(By.TAG_NAME, "main").text


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


def click(words):
    global clicks
    clicks += 1
    page.find_element(By.XPATH, f"//main//*[self::a or self::button][normalize-space()='{words}']").click()


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

clicks += 1
page.find_element(By.XPATH, "//tr[td[1]='species']//a").click()
until(lambda: "Start training" in text())
seen("train")
click("Start training")
until(lambda: "/trainings/" in page.current_url)
assert clicks <= 6, f"{clicks} clicks from the first page to a training"
print(f"{clicks} clicks from the first page to a training")

# It ends before the reader's eyes, without reloading.
page.execute_script("window.same = true")
until(lambda: text().count("done") >= 6, 120)
assert page.execute_script("return window.same"), "the page was loaded anew"
seen("training")

page.find_element(By.CSS_SELECTOR, "tbody a").click()
until(lambda: "Which columns matter" in text())
picture = page.find_element(By.CSS_SELECTOR, "img.plot")
until(lambda: page.execute_script("return arguments[0].naturalWidth", picture) > 100)
seen("model")
model = page.current_url
for format in ["native", "onnx", "json"]:
    link = page.find_element(By.CSS_SELECTOR, f"a[href$='download?format={format}']").get_attribute("href")
    assert len(urllib.request.urlopen(link).read()) > 100, link

page.find_element(By.XPATH, "//form[@id='try']//button").click()
until(lambda: page.find_elements(By.CSS_SELECTOR, ".answer td"))
assert page.find_element(By.CSS_SELECTOR, ".answer td").text == "Adelie"
seen("tried")

page.find_element(By.XPATH, "//form[@action='predictions']//button").click()
until(lambda: "done" in text() and "Adelie," in text())
seen("prediction")

for name in ["", "datasets", "trainings", "models", "predictions"]:
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
assert "there is no dataset" in text(), text()
page.get_log("browser")
page.quit()

page = browser("dark")
for name, address in [("dark-overview", url), ("dark-model", model)]:
    page.get(address)
    seen(name)
page.quit()
