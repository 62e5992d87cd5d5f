import pytest


@pytest.fixture(autouse=True)
def own_folders(tmp_path, monkeypatch):
    """Datasets and cache of their own for each test."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    monkeypatch.setenv("SB3_GENOFFLINE_CACHE", str(tmp_path / "cache"))
    return tmp_path
