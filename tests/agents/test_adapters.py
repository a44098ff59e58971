from __future__ import annotations

import json
import os
import shutil
import struct

import pytest
from safetensors.torch import load_file, save_file

from agents.inference import adapters
from agents.inference.base import base_digest, template_digest
from agents.inference.decoder import Decoder
from agents.inference.engine import AdapterStore, Limits
from agents.inference.errors import BadAdapter, UnknownAdapter
from tests.agents.tiny import make_adapter, make_base


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return make_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def made(tmp_path_factory, base):
    folder = tmp_path_factory.mktemp("made") / "good"
    make_adapter(folder, base)
    return folder


@pytest.fixture
def good(tmp_path, made):
    return shutil.copytree(made, tmp_path / "good")


def check(folder, base, **more):
    shape = adapters.BaseShape.of(base)
    return adapters.check(folder, shape, base_digest=base_digest(base), template_digest=template_digest(base), **more)


def test_a_whole_folder_passes_and_says_what_it_is(good, base):
    info = check(good, base, require_manifest=True)
    assert info.rank == 4
    assert info.scaling == 2.0
    assert info.verified
    assert len(info.targets) == 7
    assert info.digest == json.loads((good / "manifest.json").read_text())["digest"]


def test_the_digest_names_what_acts_and_not_where_it_was_made(good):
    before = adapters.digest(good)
    config = adapters.read_config(good)
    elsewhere = config | {"base_model_name_or_path": "/other/host", "target_modules": config["target_modules"][::-1]}
    (good / "adapter_config.json").write_text(json.dumps(elsewhere, indent=4))
    assert adapters.digest(good) == before
    (good / "adapter_config.json").write_text(json.dumps(config | {"lora_alpha": 9}))
    assert adapters.digest(good) != before


def test_a_folder_without_manifest_is_read_but_not_called_verified(good, base):
    (good / "manifest.json").unlink()
    assert not check(good, base).verified
    with pytest.raises(BadAdapter, match="nothing confirms"):
        check(good, base, require_manifest=True)


# -- forty ways to be bad: each is refused, and the reason names it


def config_with(**changes):
    def spoil(folder):
        path = folder / "adapter_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return spoil


def raw(name, content):
    return lambda folder: (folder / name).write_bytes(content)


def without(name):
    return lambda folder: (folder / name).unlink()


def truncated(share):
    def spoil(folder):
        path = folder / "adapter_model.safetensors"
        path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])

    return spoil


def longer(folder):
    with (folder / "adapter_model.safetensors").open("ab") as file:
        file.write(b"more")


def weights_with(change):
    def spoil(folder):
        path = folder / "adapter_model.safetensors"
        save_file(change(load_file(path)), path)
        (folder / "manifest.json").unlink()

    return spoil


def header_with(change):
    def spoil(folder):
        path = folder / "adapter_model.safetensors"
        content = path.read_bytes()
        (length,) = struct.unpack("<Q", content[:8])
        header = json.loads(content[8 : 8 + length])
        change(header)
        text = json.dumps(header).encode()
        path.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + length :])

    return spoil


def linked(name):
    def spoil(folder):
        (folder / name).rename(folder.parent / name)
        (folder / name).symlink_to(folder.parent / name)

    return spoil


def renamed(old, new):
    return lambda tensors: {key.replace(old, new): value for key, value in tensors.items()}


def one_byte(folder):
    path = folder / "adapter_model.safetensors"
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(bytes(content))


def first(header):
    return next(key for key in header if key != "__metadata__")


def manifest_with(**changes):
    def spoil(folder):
        path = folder / "manifest.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return spoil


BAD = {
    "no config": (without("adapter_config.json"), "no adapter_config.json"),
    "no weights": (without("adapter_model.safetensors"), "no adapter_model"),
    "config cut off": (raw("adapter_config.json", b'{"r": 4,'), "not JSON"),
    "config a list": (raw("adapter_config.json", b"[]"), "an object was expected"),
    "config not text": (raw("adapter_config.json", b"\xff\xfe\x00"), "not JSON"),
    "config nested": (raw("adapter_config.json", b"[" * 30000), "not JSON"),
    "config huge": (raw("adapter_config.json", b" " * 70000), "at most"),
    "weights empty": (raw("adapter_model.safetensors", b""), "truncated"),
    "weights text": (raw("adapter_model.safetensors", b"version https://git-lfs"), "not a whole"),
    "weights half": (truncated(0.5), "header says"),
    "weights in header": (truncated(0.02), "not a whole"),
    "weights longer": (longer, "header says"),
    "weights one byte": (one_byte, "swapped or damaged"),
    "pickle in its place": (
        raw("adapter_model.safetensors", b"\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00."),
        "whole",
    ),
    "pickle beside": (raw("adapter_model.bin", b"\x80\x04."), "pickled"),
    "code beside": (raw("modeling.py", b"import os"), "pickled"),
    "dora": (config_with(use_dora=True), "use_dora"),
    "modules_to_save": (config_with(modules_to_save=["lm_head"]), "modules_to_save"),
    "bias": (config_with(bias="all"), "bias"),
    "other method": (config_with(peft_type="IA3"), "only LORA"),
    "rank zero": (config_with(r=0), "r: 0"),
    "rank huge": (config_with(r=4096), "r: 4096"),
    "rank text": (config_with(r="4"), "whole number"),
    "rank lies": (config_with(r=8), "shape"),
    "alpha negative": (config_with(lora_alpha=-1), "lora_alpha"),
    "alpha nan": (config_with(lora_alpha=float("nan")), "lora_alpha"),
    "targets head": (config_with(target_modules=["lm_head"]), "not served"),
    "targets pattern": (config_with(target_modules=".*proj"), "a list"),
    "targets fewer": (config_with(target_modules=["q_proj"]), "not of a target module"),
    "rank pattern": (config_with(rank_pattern={"q_proj": 2}), "rank_pattern"),
    "pissa": (config_with(init_lora_weights="pissa"), "another base"),
    "unknown key": (config_with(run_this="code"), "run_this"),
    "layer too many": (weights_with(renamed("layers.1.", "layers.7.")), "layer 7"),
    "layer missing": (
        weights_with(lambda t: {k: v for k, v in t.items() if "layers.1.mlp" not in k}),
        "in layer 1",
    ),
    "foreign tensor": (weights_with(lambda t: t | {"lm_head.weight": t[next(iter(t))].clone()}), "no LoRA module"),
    "wrong width": (weights_with(lambda t: {k: v[:, :-1].contiguous() for k, v in t.items()}), "shape"),
    "double": (weights_with(lambda t: {k: v.double() for k, v in t.items()}), "F64"),
    "overlap": (header_with(lambda h: h[first(h)].update(data_offsets=[4, 516])), "shape|overlap"),
    "offsets text": (header_with(lambda h: h[first(h)].update(data_offsets="0")), "broken"),
    "offsets negative": (header_with(lambda h: h[first(h)].update(data_offsets=[-512, 0])), "bytes|overlap"),
    "weights linked": (linked("adapter_model.safetensors"), "link"),
    "config linked": (linked("adapter_config.json"), "link"),
    "another base": (manifest_with(base_digest="0" * 64), "another base model"),
    "another template": (manifest_with(template_digest="0" * 64), "another chat template"),
    "manifest lies": (manifest_with(digest="0" * 64), "swapped or damaged"),
    "manifest broken": (raw("manifest.json", b"{"), "not JSON"),
}


@pytest.mark.parametrize("what", BAD)
def test_a_bad_folder_is_refused_and_named(what, good, base):
    spoil, why = BAD[what]
    spoil(good)
    with pytest.raises(BadAdapter, match=why) as caught:
        check(good, base)
    assert str(caught.value).startswith("good")
    assert "\n" not in str(caught.value)


def test_of_all_bad_folders_together_none_is_served_and_each_is_named(tmp_path, made, base):
    root = tmp_path / "adapters"
    root.mkdir()
    for number, (spoil, _) in enumerate(BAD.values()):
        spoil(shutil.copytree(made, tmp_path / f"{number}" / f"bad-{number}"))
        shutil.move(tmp_path / f"{number}" / f"bad-{number}", root / f"bad-{number}")
    shutil.copytree(made, root / "good")
    shutil.copytree(made, root / ("0" * 64))  # swapped: its name is another version's digest
    (root / "link").symlink_to(made)
    limits = Limits(adapter_bytes=2**20)
    store = AdapterStore(root, Decoder(base), base, limits, require_manifest=False)
    store.scan()
    assert store.names() == ["good"]
    assert len(BAD) >= 40
    assert len(store.bad) == len(BAD) + 2
    for name, why in store.bad.items():
        assert why.startswith(name[:12]), why
        with pytest.raises(UnknownAdapter):
            store.acquire(name)
        with pytest.raises((BadAdapter, UnknownAdapter)):
            store.add(name, str(root / name))
    for path in ("../made/good", "/etc", str(made), "good/../link"):
        with pytest.raises((BadAdapter, UnknownAdapter)):
            store.add("elsewhere", path)
    assert list(store.loaded) == []


def test_a_folder_of_another_tenant_is_refused(good, base):
    with pytest.raises(BadAdapter, match="brand is 'acme'"):
        check(good, base, expect={"brand": "globex"})


def test_a_swapped_folder_is_refused_by_its_name(tmp_path, base):
    one = make_adapter(tmp_path / "one", base, seed=1)
    other = tmp_path / make_adapter(tmp_path / "two", base, seed=2)
    (tmp_path / "one").rename(other)
    with pytest.raises(BadAdapter, match=f"the digest {one[:12]}"):
        check(other, base)


def test_a_linked_folder_and_an_odd_name_are_refused(tmp_path, good, base):
    link = tmp_path / "link"
    link.symlink_to(good)
    with pytest.raises(BadAdapter, match="not a folder"):
        check(link, base)
    odd = tmp_path / "..odd"
    os.rename(good, odd)
    with pytest.raises(BadAdapter, match="not an adapter name"):
        check(odd, base)


def test_an_oversize_file_is_refused_unread(good, base):
    with pytest.raises(BadAdapter, match="at most 1000 are taken"):
        check(good, base, max_bytes=1000)
