"""What somebody else would try through an operator's browser: texts that run, pages of other sites, frames,
names that point here, cookies that were set before."""

from __future__ import annotations

import http.server
import json
import re
import threading
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, expect

from tests.e2e.home import Home, fake
from tests.support.chromium import Chromium
from tests.support.polling import until

from .conftest import REBOUND, SECONDS, Look, View

pytestmark = pytest.mark.browser

RUN = "window.brokenIn = true"
IMAGE = f'<img src=x onerror="{RUN}">'
MARKUP = f'"><script>{RUN}</script>{IMAGE}<svg onload="{RUN}"></svg>'
ANSWERS = [
    f"[a](javascript:{RUN}) [b](JaVaScRiPt:{RUN}) [c](java\tscript:{RUN}) [d](  javascript:{RUN})",
    f"[e](data:text/html;base64,PHNjcmlwdD4=) [f](vbscript:{RUN}) [g](&#106;avascript:{RUN})",
    f"<javascript:{RUN}> [h][r]\n\n[r]: javascript:{RUN} 'title'",
    f"[i](//far.example/x) [j](file:///etc/passwd) [k](blob:x) [l](https://ok.example 'x\" onclick=\"{RUN}')",
    f'![m](data:image/svg+xml;base64,PHN2Zz4=) ![n](data:image/png;base64,AA" onerror="{RUN})',
    f'![o](https://far.example/p.png) ![p" onerror="{RUN}](x.png)',
    f"{IMAGE} <IMG SRC=x ONERROR={RUN}> <img/src=x/onerror={RUN}> <svg><script>{RUN}</script></svg>",
    f"<iframe srcdoc='<script>{RUN}</script>'></iframe><object data=x></object><embed src=x>",
    '<style>body{display:none}</style><link rel=stylesheet href=//far.example/s><base href="//far.example/">',
    '<meta http-equiv=refresh content="0;url=//far.example/"><form action="//far.example"><button>go</button></form>',
    f'<math><mtext><table><mglyph><style><!--</style><img title="--&gt;&lt;img src=x onerror={RUN}&gt;">',
    f'<noscript><p title="</noscript><img src=x onerror={RUN}>">',
    f'<details open ontoggle="{RUN}"><summary>s</summary>t</details><input autofocus onfocus="{RUN}">',
    "<a id=app name=app>clobber</a><img name=getElementById><form id=body></form>",
    f"$\\href{{javascript:{RUN}}}{{q}}$ $\\url{{javascript:{RUN}}}$ $\\includegraphics{{//far.example/x.png}}$",
    f"$\\htmlData{{x=y}}{{z}}$ $\\htmlStyle{{position:fixed}}{{z}}$ $<script>{RUN}</script>$ $\\unknown{{{IMAGE}}}$",
    f'```js" onclick="{RUN}\n</code></pre>{IMAGE}\n```',
    f"```html\n{MARKUP}\n```\n\n`{MARKUP}`",
    f"| a |\n|---|\n| {IMAGE} [x](javascript:{RUN}) |\n\n- [ ] {IMAGE}\n- [x] {MARKUP}",
]  # fmt: skip
ALLOWED = {
    "A", "B", "BLOCKQUOTE", "BR", "BUTTON", "CODE", "DEL", "DETAILS", "DIV", "EM", "H1", "H2", "H3", "HR", "I", "IMG",
    "INPUT", "KBD", "LI", "OL", "P", "PATH", "PRE", "S", "SPAN", "STRONG", "SUB", "SUMMARY", "SUP", "SVG", "TABLE",
    "TBODY", "TD", "TH", "THEAD", "TR", "UL",
}  # fmt: skip
INSPECT = """root => {
  const found = {tags: [], handlers: [], links: [], loads: [], styled: []};
  for (const one of root.querySelectorAll("*")) {
    const formula = one.closest(".katex, .katex-error");
    if (!formula) found.tags.push(one.tagName.toUpperCase());
    for (const {name, value} of one.attributes) {
      if (name.startsWith("on") || name === "srcdoc" || name === "action") found.handlers.push(one.outerHTML);
      if (name === "href" || name === "xlink:href") found.links.push(value);
      if (name === "src" || name === "srcset" || name === "data") found.loads.push(value);
      if (name === "style" && !formula) found.styled.push(one.outerHTML);
    }
  }
  return found;
}"""


def harmless(view: View) -> None:
    """Nothing has run, and the page's own parts are where they were."""
    assert view.page.evaluate("window.brokenIn") is None
    expect(view.page.locator("#app main")).to_be_visible()


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory, chromium: Chromium) -> Iterator[Home]:
    """A node whose models, logs and files say what an attacker would have them say."""
    root = tmp_path_factory.mktemp("home")
    (root / "answers.json").write_text(json.dumps([{"content": f"{one}\n\n"} for one in ANSWERS]))
    (root / "reasons.json").write_text(
        json.dumps([{"reasoning_content": MARKUP}, {"content": MARKUP}])
    )
    named = root / IMAGE
    named.mkdir()
    with Home(root) as home:
        home.write(
            [
                fake("answers", "--deltas", str(root / "answers.json")),
                fake("reasons", "--deltas", str(root / "reasons.json")),
                fake("named", source=str(named)),
            ]
        )
        home.yibu("up", "-d", code=None)  # an empty folder is no model
        yield home


@pytest.fixture
def target(look: Look, hostile: Home) -> View:
    return look(hostile.url())


def ask(view: View, model: str) -> Locator:
    page = view.open("chat").page
    page.get_by_label("Model", exact=True).first.select_option(model)
    page.get_by_role("textbox", name="Message").fill(MARKUP)
    page.keyboard.press("Enter")
    answer = page.get_by_role("article")
    expect(answer).to_have_attribute("aria-busy", "false")
    return answer


def test_nothing_in_an_answer_runs_loads_or_leads_to_a_script(target: View) -> None:
    answer = ask(target, "answers")
    shown = answer.locator(".markdown")
    expect(shown.get_by_role("link", name="o", exact=True)).to_be_visible()
    expect(shown.locator("td")).to_have_count(1)
    found = shown.evaluate(INSPECT)
    assert set(found["tags"]) <= ALLOWED
    assert found["handlers"] == []
    assert found["styled"] == []
    assert {urllib.parse.urlsplit(link).scheme for link in found["links"]} <= {"https", "http"}
    assert [one for one in found["loads"] if not one.startswith("data:image/png")] == []
    for link in shown.get_by_role("link").all():
        expect(link).to_have_attribute("rel", re.compile("noopener.*noreferrer"))
    assert target.page.evaluate("document.baseURI").startswith(target.url)
    harmless(target)


def test_nothing_runs_in_what_was_asked_thought_or_kept(target: View) -> None:
    answer = ask(target, "reasons")
    answer.get_by_text("Reasoning").click()
    expect(answer.get_by_text(RUN).first).to_be_visible()
    expect(target.page.locator(".question")).to_contain_text(MARKUP)
    target.page.reload()
    target.page.get_by_role("button", name="History").click()
    expect(target.page.get_by_role("button", name=re.compile("<script>")).first).to_be_visible()
    harmless(target)


def test_nothing_runs_in_sources_logs_files_addresses_and_refusals(
    target: View, hostile: Home, tmp_path: Path
) -> None:
    target.expected = ("422", "404", "400")
    page = target.open("overview").page
    model = page.locator("li.model").filter(has=page.get_by_text("named", exact=True))
    expect(model.get_by_title(str(hostile.root / IMAGE))).to_be_visible()
    expect(model.get_by_role("alert")).to_contain_text(IMAGE)
    log = hostile.root / "logs/answers-0.log"
    with log.open("a") as written:
        written.write(f"ERROR {MARKUP} \x1b]8;;javascript:{RUN}\x07link\x1b]8;;\x07\n")
    target.open("logs/answers-0")
    page.get_by_label("Search").fill("<script>")
    expect(page.locator("mark").first).to_have_text("<script>")
    harmless(target)

    target.open("deploy")
    page.get_by_label("Model", exact=True).fill(f"/{MARKUP}.gguf")
    page.get_by_role("button", name="Plan", exact=True).click()
    expect(page.get_by_role("alert")).to_contain_text("<script>")
    harmless(target)

    target.open("config")
    page.get_by_role("textbox", name="Text of the configuration").fill(
        json.dumps({"models": [{"name": MARKUP, MARKUP: 1}]})
    )
    expect(page.locator(".faults")).to_contain_text("<script>")
    harmless(target)

    target.open("keys")
    page.get_by_role("button", name="New key").click()
    dialog = page.get_by_role("dialog", name="New key")
    dialog.get_by_label("Name", exact=True).fill(IMAGE)
    dialog.get_by_role("button", name="Make the key").click()
    expect(dialog.locator(".fault, [role=alert]").first).to_contain_text("onerror")
    harmless(target)

    for address in (
        "constructor",
        "__proto__",
        "%",
        "%E0%A4%A",
        f"logs/{MARKUP}",
        f"chat?x={MARKUP}",
    ):
        page.goto("about:blank")  # an address that differs behind # alone is not loaded
        page.goto(f"{target.url}/#/{address}")
        page.locator("h1").first.wait_for()
        harmless(target)


@contextmanager
def elsewhere(html: str) -> Iterator[str]:
    """The address of a page of another origin on this machine, which is of the same site to a browser."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            data = html.encode()
            self.send_response(200)
            self.send_header("content-type", "text/html; charset=utf-8")
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            """The test's output stays readable."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/"
        finally:
            server.shutdown()
            thread.join()


ATTEMPTS = """async url => {
  const done = {};
  const attempt = async (name, work) => {
    try { done[name] = await work(); } catch (error) { done[name] = `refused: ${error.name}`; }
  };
  const read = (path, options) => async () => {
    const answer = await fetch(url + path, {credentials: "include", ...options});
    return `${answer.status} ${(await answer.text()).length}`;
  };
  const post = {method: "POST", body: "{}"};
  await attempt("read", read("/console/api/overview", {}));
  await attempt("session", read("/console/api/session", {}));
  await attempt("stop", read("/console/api/models/chat/stop", {...post, mode: "no-cors"}));
  await attempt("config", read("/console/api/config/rollback", {...post, mode: "no-cors"}));
  await attempt("key", read("/console/api/keys", {...post, body: '{"name": "evil", "admin": true}',
    headers: {"content-type": "application/json"}}));
  await attempt("chat", read("/v1/chat/completions", {...post, mode: "no-cors",
    body: '{"model": "chat", "messages": [{"role": "user", "content": "hello"}]}'}));
  await attempt("events", () => new Promise((resolve, reject) => {
    const source = new EventSource(url + "/console/api/events", {withCredentials: true});
    source.onmessage = source.onopen = () => resolve("opened");
    source.onerror = () => { source.close(); reject(new Error("closed")); };
  }));
  await attempt("live", () => new Promise((resolve, reject) => {
    const socket = new WebSocket(url.replace("http", "ws") + "/v1/realtime?intent=transcription", ["realtime"]);
    socket.onopen = () => resolve("opened");
    socket.onerror = () => reject(new Error("closed"));
  }));
  const form = Object.assign(document.createElement("form"), {method: "POST", target: "sink",
    action: url + "/console/api/models/chat/stop", enctype: "text/plain"});
  form.append(Object.assign(document.createElement("input"), {name: '{"a":"', value: '"}'}));
  document.body.append(form);
  form.submit();
  await new Promise(resolve => document.getElementsByName("sink")[0].addEventListener("load", resolve));
  return done;
}"""
PAGE = '<!doctype html><title>evil</title><iframe name="sink"></iframe>'


@pytest.mark.parametrize("keys", [False, True], ids=["open", "signed in"])
def test_a_page_of_another_origin_can_do_nothing(browser: Browser, home: Home, keys: bool) -> None:
    """Without keys, and in a browser whose operator is signed in."""
    home.write([fake("chat")])
    home.yibu("up", "-d")
    url = home.url()
    context = browser.new_context()
    context.set_default_timeout(SECONDS * 1000)
    page = context.new_page()
    if keys:
        made = context.request.post(f"{url}/console/api/keys", data={"name": "ops", "admin": True})
        page.goto(url)
        page.get_by_label("Admin API key").fill(made.json()["key"])
        page.get_by_role("button", name="Sign in").click()
        page.locator("li.model").wait_for()
        assert context.cookies()[0]["sameSite"] == "Strict"
    log = home.root / "logs/chat-0.log"
    before = log.read_text().count("generation")
    with elsewhere(PAGE) as evil:
        page.goto(evil)
        done = page.evaluate(ATTEMPTS, url)
        statuses = {name: said for name, said in done.items() if not said.startswith("refused")}
        # What no-cors lets a page send it may not read: an opaque answer.
        assert set(statuses.values()) <= {"0 0"}, done
        assert not {"read", "session", "key", "events", "live"} & set(statuses), done
        # Nor may it show the console in a frame, to have somebody click there.
        framing = f'<!doctype html><title>frame</title><iframe name="framed" src="{url}/console"></iframe>'
        with elsewhere(framing) as frame:
            page.goto(frame)
            framed = page.frame(name="framed")
            assert framed is not None
            until(lambda: framed.url.startswith("chrome-error:") or framed.locator("h1").count())
            assert framed.url.startswith("chrome-error:")
    context.close()
    assert home.model("chat")["state"] == "ready"
    assert log.read_text().count("generation") == before
    assert home.yibu("key", "ls").stdout.count("evil") == 0


def test_a_name_that_points_here_opens_nothing(browser: Browser, home: Home) -> None:
    """DNS rebinding: to the browser, page and gateway are of one origin."""
    home.write([fake("chat")])
    home.yibu("up", "-d")
    port = urllib.parse.urlsplit(home.url()).port
    context = browser.new_context()
    page = context.new_page()
    answer = page.goto(f"http://{REBOUND}:{port}/", timeout=SECONDS * 1000)
    assert answer is not None
    assert answer.status == 403
    assert page.locator("#app").count() == 0
    assert page.evaluate("fetch('/console/api/overview').then(answer => answer.status)") == 403
    assert page.evaluate("fetch('/v1/models').then(answer => answer.status)") == 403
    context.close()


def test_signing_in_takes_no_cookie_that_was_there_and_a_guesser_waits(
    look: Look, home: Home
) -> None:
    home.write([fake("chat")])
    home.yibu("up", "-d")
    url = home.url()
    admin = home.yibu("key", "add", "ops", "--admin").stdout.strip().splitlines()[-1]
    app = home.yibu("key", "add", "app").stdout.strip().splitlines()[-1]
    view = look(url)
    view.expected = ("401", "403", "429")
    name = f"yibu_session_{urllib.parse.urlsplit(url).port}"
    planted = "planted-by-somebody-else"
    view.page.context.add_cookies([{"name": name, "value": planted, "url": url}])
    page = view.open().page
    field = page.get_by_label("Admin API key")
    button = page.get_by_role("button", name="Sign in")
    field.fill(app)
    button.click()
    expect(page.locator(".fault")).to_contain_text("needs an admin's")
    field.fill(admin)
    button.click()
    expect(page.locator("li.model")).to_have_count(1)
    (cookie,) = page.context.cookies()
    assert cookie["value"] != planted
    assert cookie["httpOnly"]
    assert page.evaluate("document.cookie") == ""
    stored = page.evaluate("JSON.stringify([{...localStorage}, {...sessionStorage}])")
    assert admin not in stored
    with_planted = {"cookie": f"{name}={planted}"}
    assert page.request.get(f"{url}/v1/models", headers=with_planted).status == 401
    page.get_by_role("button", name="Sign out").click()

    def has_to_wait() -> bool:
        """Most of a minute, so that the page asks within it on a slow machine too."""
        guess = page.request.post(f"{url}/console/api/session", data={"key": "a-guess-of-a-key"})
        return guess.status == 429 and int(guess.headers["retry-after"]) > 40

    until(has_to_wait)
    field.fill(admin)
    button.click()
    expect(page.locator(".fault")).to_contain_text("try again in")
