"""docs/frameworks.md: each recipe, run as it is printed, does what its page says."""

from __future__ import annotations

import importlib
import inspect
import json
import re
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn
from uuid import UUID

import pytest
from webtest import TestResponse

import minisession
from minisession import MemoryStore, SessionMiddleware, StoreUnavailable, get_session

from ..support.browser import SECRET, Browser, SpyStore
from ..support.deployed import program, running
from ..support.pages import ROOT, run_transcript
from ..support.ports import free_port
from ..support.tools import need_module, need_program

PAGE = (ROOT / "docs" / "frameworks.md").read_text()
MODULES = {
    "No framework": "minisession",
    "Flask": "flask",
    "Bottle": "bottle",
    "Pyramid": "pyramid.config",
    "Falcon": "falcon",
    "Django": "django",
}


def blocks(heading: str, *languages: str) -> list[str]:
    """Return the Python, or what is in these languages, between a heading and the next."""
    (section,) = re.findall(rf"^#+ {heading}\n(.*?)(?=^##|\Z)", PAGE, re.M | re.S)
    return re.findall(rf"^```(?:{'|'.join(languages or ['python'])})\n(.*?)^```$", section, re.M | re.S)


def run(text: str, name: str = "recipe", **names: Any) -> dict[str, Any]:
    """Run a block as the file ``name``.py; return its names."""
    made = sys.modules[name] = ModuleType(name)  # Pyramid and Flask look there for who calls them
    made.__dict__.update(names)
    exec(compile(text, f"{name}.py", "exec"), made.__dict__)
    return made.__dict__


def import_framework(name: str) -> Any:
    with warnings.catch_warnings():
        # Pyramid asks for pkg_resources, and WebOb below it for cgi; both tell so at import.
        warnings.filterwarnings("ignore", ".*pkg_resources|'cgi' is deprecated")
        return need_module(name)


class Store(SpyStore):
    """A store that can go down: ``failures[verb]`` is what the verb raises."""

    def __init__(self) -> None:
        super().__init__()
        self.failures: dict[str, Exception] = {}

    def __getattr__(self, verb: str) -> Callable[..., Any]:
        if verb in self.failures:
            raise self.failures[verb]
        return super().__getattr__(verb)

    def record(self) -> dict[str, Any]:
        """Return the only session there is."""
        assert isinstance(self.store, MemoryStore)
        (id,) = self.store.ids()
        stored = self.store.load(id)
        assert stored is not None
        record: dict[str, Any] = json.loads(stored.data)
        return record


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Store:
    """Be where the recipes keep their sessions, whether they name a store or not."""
    store = Store()
    monkeypatch.setattr(minisession, "SessionMiddleware", partial(SessionMiddleware, store=store))
    monkeypatch.setattr(minisession, "open_store", {"redis://": store}.get)
    monkeypatch.setenv("SESSION_STORE", "redis://")
    monkeypatch.setenv("SESSION_SECRET", SECRET)
    return store


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Start a Django project, and put the recipe's files into it; Django can be set up once in a process."""
    need_module("django")
    root = tmp_path_factory.mktemp("django")
    make_project(root)
    with (root / "mysite" / "settings.py").open("a") as settings:
        settings.write("SESSION_ENGINE = 'django.contrib.sessions.backends.signed_cookies'\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(root))
        patch.setenv("DJANGO_SETTINGS_MODULE", "mysite.settings")
        yield root


def make_project(root: Path) -> None:
    command = [sys.executable, "-m", "django", "startproject", "mysite", "."]
    subprocess.run(command, cwd=root, check=True, timeout=60)
    for block in blocks("Django", "python", "html"):
        name = re.split(r"[\s,]+", block)[1]
        old = (root / name).read_text() if name == "mysite/settings.py" else ""
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text(old + block)


@pytest.fixture(params=MODULES)
def browser(request: pytest.FixtureRequest, store: Store) -> Browser:
    """Open a browser at the app of each recipe."""
    import_framework(MODULES[request.param])
    if request.param == "Django":
        root = request.getfixturevalue("project")
        return Browser(run((root / "mysite" / "wsgi.py").read_text())["application"])
    return Browser(run(blocks(request.param)[0])["app"])


def post(browser: Browser, path: str, **fields: str) -> TestResponse:
    """Send a form as a browser does: with what is hidden in it, and with where it came from."""
    form = browser.get("/login", expect_errors=True)  # Django's; the other recipes have no page there
    fields |= re.findall('name="(csrfmiddlewaretoken)" value="(.+?)"', form.text)
    return browser.client.post(path, fields, headers={"Origin": "https://localhost:80"}, expect_errors=True)


def test_visitors_are_told_apart_log_in_and_log_out(browser: Browser, store: Store) -> None:
    """Log-in changes the id, and log-out leaves nothing behind."""
    assert browser.get("/").text == "stranger: 1 views\n"
    assert browser.get("/").text == "stranger: 2 views\n"
    planted = browser.cookie
    welcome = post(browser, "/login", user="ada")
    assert welcome.status_int in (302, 303)
    assert "; HttpOnly; Path=/; SameSite=Lax; Secure" in welcome.headers["Set-Cookie"]
    assert browser.cookie != planted
    assert browser.get("/").text == "ada: 1 views\n"
    assert store.record()["minisession"]["user"] == "ada"

    assert post(browser, "/logout").status_int in (302, 303)

    assert browser.cookie is None
    assert browser.get("/").text == "stranger: 1 views\n"


def test_a_streaming_page_makes_a_session_and_changes_it_as_it_goes(browser: Browser, store: Store) -> None:
    """The cookie is in the headers, the last line's number in the store."""
    assert browser.get("/stream").text == "line 0\nline 1\nline 2\n"
    assert browser.cookie
    assert (store.record()["streams"], store.record()["line"]) == (1, 2)


def test_a_page_that_is_not_there_costs_no_session(browser: Browser, store: Store) -> None:
    browser.get("/")
    assert store.verbs
    page = browser.get("/nowhere", status=404)
    assert not store.verbs
    assert "Set-Cookie" not in page.headers


def ask(browser: Browser, page: str) -> TestResponse:
    method, path = page.split()
    return post(browser, path, user="ada") if method == "POST" else browser.get(path, expect_errors=True)


@pytest.mark.parametrize("verb", ["load", "rotate", "replace", "delete"])
def test_a_store_that_is_down_is_503_wherever_it_is_needed(browser: Browser, store: Store, verb: str) -> None:
    """In the handler the recipe answers, and after it the middleware; pages that need no store work on."""
    needs = {
        "GET /": ("load", "replace"),
        "GET /stream": ("load", "replace"),
        "POST /login": ("load", "rotate"),
        "POST /logout": ("load", "delete"),
        "GET /nowhere": (),
    }
    for page, verbs in needs.items():
        store.failures.clear()
        browser.get("/")
        store.failures[verb] = StoreUnavailable("down")
        answer = ask(browser, page)
        if verb in verbs:
            assert (answer.status_int, answer.headers.get("Retry-After")) == (503, "5"), (page, answer)
            assert "Set-Cookie" not in answer.headers
        else:
            assert answer.status_int < 500, (page, answer)


@pytest.mark.parametrize("browser", ["Flask", "Bottle", "Pyramid", "Falcon", "Django"], indirect=True)
def test_the_page_of_a_store_that_is_down_is_the_recipes(browser: Browser, store: Store) -> None:
    """The middleware's would come only where the framework lets the exception pass, and a catch-all view would not."""
    browser.get("/")
    store.failures["load"] = StoreUnavailable("down")
    answer = ask(browser, "GET /")
    assert answer.status_int == 503
    assert "session store" not in answer


@pytest.mark.parametrize("browser", ["Flask", "Bottle", "Falcon", "Django"], indirect=True)
def test_other_errors_are_the_frameworks_500_page(browser: Browser, store: Store) -> None:
    """The lines for a store that is down must not hide a bug."""
    browser.get("/")
    store.failures["load"] = RuntimeError("a bug")
    assert ask(browser, "GET /").status_int == 500


@pytest.mark.parametrize("browser", ["No framework", "Pyramid"], indirect=True)
def test_other_errors_pass_where_nobody_makes_a_page_of_them(browser: Browser, store: Store) -> None:
    browser.get("/")
    store.failures["load"] = RuntimeError("a bug")
    with pytest.raises(RuntimeError, match="a bug"):
        ask(browser, "GET /")


@pytest.mark.parametrize("heading", MODULES)
def test_a_recipe_starts_by_its_command(heading: str, tmp_path: Path) -> None:
    """And its visitor sees what the page shows; Django's needs the token of its form."""
    import_framework(MODULES[heading])
    if heading == "Django":
        make_project(tmp_path)
    else:
        (tmp_path / "app.py").write_text(blocks(heading)[0])
    (command,) = blocks(heading, "sh")
    port = free_port()
    name, *arguments = command.replace("8000", str(port)).split()
    (transcript,) = blocks("Frameworks", "console")
    with running([program(name), *arguments], port, tmp_path, SESSION_SECRET=SECRET, PYTHONPATH=str(ROOT)):
        transcript = transcript.replace("8000", str(port)).replace("curl", f"{need_program('curl')} -sS")
        if heading == "Django":
            transcript = transcript[: transcript.rindex("$")]
        assert run_transcript(transcript, tmp_path) == 2 - (heading == "Django")


@pytest.mark.parametrize("browser", ["Django"], indirect=True)
def test_django_refuses_a_form_without_its_token(browser: Browser) -> None:
    """The page says so, in the words of Django's own log."""
    assert browser.client.post("/login", {"user": "ada"}, expect_errors=True).status_int == 403
    assert browser.get("/").text == "stranger: 1 views\n"


def shop() -> Any:
    """Be an existing Flask app, which knows Flask's session and nothing of minisession."""
    flask, markup = import_framework("flask"), import_framework("markupsafe").Markup
    app, session = flask.Flask(__name__), flask.session
    app.secret_key = SECRET
    since = datetime(2026, 11, 24, tzinfo=timezone.utc)

    def keep() -> str:
        session.update(since=since, size=(1, 2), raw=b"\xff", token=UUID(int=7), plan={"until": [since]}, n=1)
        return "kept"

    def show() -> str:
        return repr(sorted(session.items()))

    def flash() -> str:
        flask.flash("<i>plain</i>")
        flask.flash(markup("<b>bold</b>"), "error")
        return "flashed"

    def messages() -> Any:
        text = "{% for kind, text in get_flashed_messages(with_categories=true) %}{{ kind }} {{ text }},{% endfor %}"
        return flask.render_template_string(text)

    def add(item: str) -> Any:
        session.setdefault("cart", []).append(item)
        return session["cart"]

    def permanent(answer: str) -> str:
        session["asked"] = True
        session.permanent = answer == "yes"
        return repr(session.permanent)

    def login() -> Any:
        if hasattr(session, "regenerate"):
            session.regenerate(user="ada")
        session["name"] = "Ada"
        return "logged in"

    def clear() -> str:
        session.clear()
        return "cleared"

    def crash() -> NoReturn:
        session["before"] = "the crash"
        raise RuntimeError("a bug")

    views: list[Callable[..., Any]] = [keep, show, flash, messages, add, permanent, login, clear, crash]
    for view in views:
        arguments = "".join(f"/<{name}>" for name in inspect.signature(view).parameters)
        app.add_url_rule(f"/{view.__name__}{arguments}", view_func=view)
    return app


def with_six_lines(app: Any) -> Any:
    """Add to an app what the page says."""
    file, lines = blocks("flask.session")
    assert len(re.findall(r"^.+", lines, re.M)) == 6
    run(file, "flask_minisession")
    return run(lines, app=app)["app"]


def test_an_existing_flask_app_answers_as_before(store: Store) -> None:
    """Flask's cookie keeps more than JSON; flashed markup stays markup."""
    stock, ours = Browser(shop()), Browser(with_six_lines(shop()))
    for page in (
        "show",
        "keep",
        "show",
        "flash",
        "messages",
        "messages",
        "login",
        "permanent/yes",
        "clear",
        "show",
        "keep",
    ):
        assert ours.get(f"/{page}").text == stock.get(f"/{page}").text
    assert set(stock.client.cookies) == {"session"}
    assert set(ours.client.cookies) == {"connect.sid"}


def test_six_lines_put_an_existing_flask_apps_sessions_into_redis(monkeypatch: pytest.MonkeyPatch) -> None:
    """So another process with these six lines has them, too."""
    from ..support.redis_server import redis_server  # which skips this test alone, if there is none

    with redis_server() as server:
        monkeypatch.setenv("SESSION_STORE", server.url)
        one, other = Browser(with_six_lines(shop())), Browser(with_six_lines(shop()))
        one.get("/add/tea")
        other.client.set_cookie("connect.sid", str(one.cookie))
        assert other.get("/add/milk").json == ["tea", "milk"]


def test_a_short_secret_key_is_warned_of_and_the_pages_is_not(store: Store) -> None:
    """Here, as in the tests of Flask's tutorial, a warning is an error."""
    app = shop()
    app.secret_key = "dev"
    with pytest.warns(UserWarning, match="secret has 3 bytes, and under 16 it can be guessed"):
        with_six_lines(app)
    app = shop()
    (app.secret_key,) = re.findall('`SECRET_KEY="(.+?)"`', PAGE)
    with_six_lines(app)


def test_flask_session_notices_nested_changes(store: Store) -> None:
    """Flask's own forgets the second item, unless told that the session was modified."""
    browser = Browser(with_six_lines(shop()))
    for item in "abc":
        browser.get(f"/add/{item}")
    assert store.record()["cart"] == ["a", "b", "c"]


def test_a_permanent_flask_session_outlives_the_browser(store: Store) -> None:
    """Saying so on every request sends the cookie once."""
    browser = Browser(with_six_lines(shop()))
    assert "Max-Age" not in browser.get("/permanent/no").headers["Set-Cookie"]
    assert "Max-Age=2678400" in browser.get("/permanent/yes").headers["Set-Cookie"]
    assert "Set-Cookie" not in browser.get("/permanent/yes").headers
    assert "Max-Age" not in browser.get("/permanent/no").headers["Set-Cookie"]


def test_a_log_in_through_flask_session_changes_the_id(store: Store) -> None:
    browser = Browser(with_six_lines(shop()))
    browser.get("/keep")
    planted = browser.cookie
    browser.get("/login")
    assert browser.cookie != planted
    assert store.record()["minisession"]["user"] == "ada"
    assert "token" not in store.record()


def test_a_user_is_not_assigned_through_flask_session(store: Store) -> None:
    """It would be there for this request, and look like a login."""
    app = with_six_lines(shop())
    with app.test_request_context(), pytest.raises(AttributeError):
        import_framework("flask").session.user = "ada"


def test_what_was_changed_before_an_error_page_is_stored(store: Store) -> None:
    browser = Browser(with_six_lines(shop()))
    browser.get("/crash", expect_errors=True, status=500)
    assert store.record()["before"] == "the crash"


def test_a_flask_page_that_uses_no_session_asks_no_store(store: Store) -> None:
    """A request context may also be without the middleware, as in a shell."""
    app = with_six_lines(shop())
    browser = Browser(app)
    browser.get("/keep")
    assert store.verbs
    browser.get("/nowhere", status=404)
    assert not store.verbs
    with app.test_request_context(), pytest.raises(LookupError, match="wrap the app"):
        import_framework("flask").session["n"] = 1


# Two sessions side by side


def test_flasks_own_session_lives_beside_ours(store: Store) -> None:
    app = shop()
    app.wsgi_app = minisession.SessionMiddleware(app.wsgi_app, secret=SECRET)
    app.add_url_rule("/both", view_func=lambda: str(count(get_session(import_framework("flask").request.environ))))
    browser = Browser(app)
    browser.get("/keep")
    assert [browser.get("/both").text for _ in range(2)] == ["1", "2"]
    assert set(browser.client.cookies) == {"session", "connect.sid"}
    assert "token" in browser.get("/show")


def test_pyramids_own_session_lives_beside_ours(store: Store) -> None:
    pyramid, sessions = import_framework("pyramid.config"), import_framework("pyramid.session")
    response = import_framework("pyramid.response").Response

    def both(request: Any) -> Any:
        return response(f"{count(request.session)} {count(get_session(request.environ))}")

    with pyramid.Configurator() as config:
        config.set_session_factory(sessions.SignedCookieSessionFactory(SECRET))
        config.add_view(both)
        browser = Browser(minisession.SessionMiddleware(config.make_wsgi_app(), secret=SECRET))
    assert [browser.get("/").text for _ in range(2)] == ["1 1", "2 2"]
    assert set(browser.client.cookies) == {"session", "connect.sid"}


@pytest.mark.parametrize("browser", ["Django"], indirect=True)
def test_djangos_own_session_lives_beside_ours(browser: Browser) -> None:
    """It is Django's signed-cookie engine here, which needs no database."""
    paths = importlib.import_module("django.urls")
    response = importlib.import_module("django.http").HttpResponse
    urls = importlib.import_module("mysite.urls").urlpatterns

    def both(request: Any) -> Any:
        return response(f"{count(request.session)} {count(get_session(request.environ))}")

    urls.append(paths.path("both", both))
    assert [browser.get("/both").text for _ in range(2)] == ["1 1", "2 2"]
    assert set(browser.client.cookies) == {"sessionid", "connect.sid"}


def count(session: Any) -> int:
    session["n"] = session.get("n", 0) + 1
    return int(session["n"])
