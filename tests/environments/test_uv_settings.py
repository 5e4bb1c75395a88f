"""pip's configuration, read from real files at the places pip documents."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from yibu.environments.uv_settings import UvSettings


@pytest.fixture
def user(tmp_path: Path) -> Path:
    (tmp_path / ".config/pip").mkdir(parents=True)
    (tmp_path / "prefix").mkdir()
    return tmp_path


def read(user: Path, **env: str) -> UvSettings:
    # XDG_CONFIG_DIRS moves the global files away from this machine's own.
    base = {"HOME": str(user), "XDG_CONFIG_DIRS": str(user / "xdg")}
    return UvSettings.from_pip({**base, **env}, prefix=user / "prefix", etc=user / "etc")


def write(file: Path, text: str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


def test_nothing_configured_sets_nothing_but_the_strategy(user: Path) -> None:
    settings = read(user)
    assert settings == UvSettings()
    assert settings.uv_environment({}) == {"UV_INDEX_STRATEGY": "unsafe-best-match"}


def test_all_settings_are_handed_to_uv_as_variables(user: Path) -> None:
    links = user / "wheels"
    links.mkdir()
    certificate = write(user / "ca.pem", "x")
    write(
        user / ".config/pip/pip.conf",
        f"""[global]
index-url = https://user:pass%40word@mirror.example/simple
extra-index-url =
    https://one.example/simple
    https://two.example/simple
find-links = {links} https://links.example/
trusted-host = mirror.example
    two.example
cert = {certificate}
proxy = http://proxy.example:3128
""",
    )
    assert read(user).uv_environment({}) == {
        "UV_DEFAULT_INDEX": "https://user:pass%40word@mirror.example/simple",
        "UV_INDEX": "https://one.example/simple https://two.example/simple",
        "UV_FIND_LINKS": f"{links},https://links.example/",
        "UV_INSECURE_HOST": "mirror.example two.example",
        "SSL_CERT_FILE": str(certificate),
        "HTTP_PROXY": "http://proxy.example:3128",
        "HTTPS_PROXY": "http://proxy.example:3128",
        "UV_INDEX_STRATEGY": "unsafe-best-match",
    }


def test_credentials_are_not_in_the_repr(user: Path) -> None:
    write(user / ".config/pip/pip.conf", "[global]\nindex-url = https://user:secret@m.example/s\n")
    assert "secret" not in repr(read(user))


def test_precedence_is_global_user_site_named_file_variable_and_install_over_global(
    user: Path,
) -> None:
    def index(**env: str) -> str | None:
        return read(user, **env).default_index

    write(user / "xdg/pip/pip.conf", "[global]\nindex-url = https://global/\n")
    assert index() == "https://global/"
    write(user / ".pip/pip.conf", "[global]\nindex-url = https://legacy/\n")
    assert index() == "https://legacy/"
    write(user / ".config/pip/pip.conf", "[global]\nindex_url = https://user/\n")
    assert index() == "https://user/"
    write(user / "prefix/pip.conf", "[global]\nindex-url = https://site/\n")
    assert index() == "https://site/"
    named = write(user / "named.conf", "[global]\nindex-url = https://named/\n")
    assert index(PIP_CONFIG_FILE=str(named)) == "https://named/"
    # A command's own section wins over [global] of a stronger file.
    write(user / "xdg/pip/pip.conf", "[install]\nindex-url = https://install/\n")
    assert index(PIP_CONFIG_FILE=str(named)) == "https://install/"
    assert index(PIP_INDEX_URL="https://variable/") == "https://variable/"


def test_devnull_turns_the_files_off(user: Path) -> None:
    write(user / ".config/pip/pip.conf", "[global]\nindex-url = https://user/\n")
    assert read(user, PIP_CONFIG_FILE=os.devnull).default_index is None


def test_directories_that_do_not_exist_are_left_out(user: Path) -> None:
    (user / "here/simple").mkdir(parents=True)
    write(
        user / ".config/pip/pip.conf",
        f"""[global]
extra-index-url = file://{user}/gone/simple file://{user}/here/simple https://far.example/simple
find-links = {user}/no-such-folder
cert = {user}/no-such-file
""",
    )
    settings = read(user)
    assert settings.extra_indexes == (f"file://{user}/here/simple", "https://far.example/simple")
    assert settings.find_links == ()
    assert settings.certificate is None


@pytest.mark.parametrize(
    ("own", "left_alone"),
    [
        ({"UV_DEFAULT_INDEX": "https://uv/"}, "UV_DEFAULT_INDEX"),
        ({"UV_INDEX_URL": "https://uv/"}, "UV_DEFAULT_INDEX"),
        ({"https_proxy": "http://p/"}, "HTTPS_PROXY"),
        ({"SSL_CERT_FILE": "/x.pem"}, "SSL_CERT_FILE"),
    ],
)
def test_what_the_user_set_for_uv_wins(user: Path, own: dict[str, str], left_alone: str) -> None:
    certificate = write(user / "ca.pem", "x")
    settings = read(
        user,
        PIP_INDEX_URL="https://pip/",
        PIP_PROXY="http://pip-proxy/",
        PIP_CERT=str(certificate),
    )
    assert left_alone in settings.uv_environment({})
    assert left_alone not in settings.uv_environment(own)


def test_no_index(user: Path) -> None:
    assert read(user, PIP_NO_INDEX="true").uv_environment({})["UV_NO_INDEX"] == "1"
    assert "UV_NO_INDEX" not in read(user, PIP_NO_INDEX="0").uv_environment({})


def test_a_broken_file_is_passed_over(user: Path) -> None:
    write(user / ".config/pip/pip.conf", "no section at all\n")
    write(user / "prefix/pip.conf", "[global]\nindex-url = https://site/\n")
    assert read(user).default_index == "https://site/"
