"""Settings: from the environment, and what is secret from files."""

from pathlib import Path

import pytest
from pydantic import SecretStr
from pydantic_settings import BaseSettings

from services.runtime import config


class Settings(BaseSettings):
    """Some server's."""

    listen_address: str
    signing_key_secret: SecretStr


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LISTEN_ADDRESS", "127.0.0.1:1")
    monkeypatch.delenv("SIGNING_KEY_SECRET", raising=False)


def secret_of(folder: Path) -> str:
    return config.load(Settings, folder).signing_key_secret.get_secret_value()


def test_a_secret_is_a_file_named_as_the_setting(tmp_path: Path) -> None:
    (tmp_path / "signing_key_secret").write_text("from a file\n")
    assert secret_of(tmp_path) == "from a file"


def test_the_environment_is_heard_before_the_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "signing_key_secret").write_text("from a file")
    monkeypatch.setenv("SIGNING_KEY_SECRET", "from the environment")
    assert secret_of(tmp_path) == "from the environment"


def test_all_that_is_missing_is_named_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LISTEN_ADDRESS")
    with pytest.raises(SystemExit, match=r"LISTEN_ADDRESS: Field required\n  SIGNING_KEY_SECRET: Field required"):
        config.load(Settings, tmp_path / "nowhere")
