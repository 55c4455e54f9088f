"""Cells from a folder and from a web server: checked byte by byte before they are believed."""

import errno
import json
import pathlib
import shutil
import socket
import tempfile
import threading

import pytest
from hypothesis import given, HealthCheck, settings, strategies as st

from mnemo_compile.errors import MnemoError
from mnemo_compile.frozen import BUNDLE_FILES, load_bundle
from mnemo_compile.zoo import _fetch, _transport, Entry, open_zoo, parse_reference


def find(location: str, reference: str = "small-cell") -> Entry:
    return open_zoo(location).index.find(parse_reference(reference))


def download(location: str, folder: pathlib.Path, reference: str = "small-cell") -> None:
    open_zoo(location).download(find(location, reference), folder)


def refusal(location: str, folder: pathlib.Path, reference: str = "small-cell") -> str:
    """The sentence with which a download fails, having left nothing behind."""
    before = sorted(folder.parent.rglob("*"))
    with pytest.raises(MnemoError) as caught:
        download(location, folder, reference)
    assert "\n" not in str(caught.value)
    assert sorted(folder.parent.rglob("*")) == before
    return str(caught.value)


@pytest.mark.parametrize(
    ("reference", "version"),
    [
        ("small-cell", "1.2.0"),
        ("small-cell@1.0.0", "1.0.0"),
        ("small-cell@^1", "1.2.0"),
        ("small-cell@^1.1", "1.2.0"),
        ("small-cell@^0.9", "0.9.0"),
    ],
)
def test_the_latest_version_that_will_do(zoo_folder: pathlib.Path, reference: str, version: str) -> None:
    assert find(str(zoo_folder), reference).version == version


def test_a_name_that_is_not_there(zoo_folder: pathlib.Path, tmp_path: pathlib.Path) -> None:
    sentence = refusal(str(zoo_folder), tmp_path / "out", "smal-cell")
    assert "no 'smal-cell' in the zoo, which has other-cell, small-cell; did you mean small-cell" in sentence


def test_a_version_that_is_not_there(zoo_folder: pathlib.Path, tmp_path: pathlib.Path) -> None:
    sentence = refusal(str(zoo_folder), tmp_path / "out", "small-cell@^2")
    assert sentence == "the zoo has no such version of small-cell; it has 1.2.0, 1.0.0, 0.9.0"


def test_a_folder_a_file_url_and_a_server_give_the_same_bytes(server, zoo_folder, tmp_path: pathlib.Path) -> None:
    locations = (str(zoo_folder), f"{zoo_folder}/", zoo_folder.as_uri(), server.url, f"{server.url}/")
    for number, location in enumerate(locations):
        download(location, tmp_path / str(number))
        for name in BUNDLE_FILES:
            there = zoo_folder / "small-cell" / "1.2.0" / name
            assert (tmp_path / str(number) / name).read_bytes() == there.read_bytes()
        assert open_zoo(location).load(find(location)).version == "1.2.0"


@pytest.mark.parametrize("name", BUNDLE_FILES)
@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("truncate", "broke off before its end; try again"),
        ("flip", "is damaged: its sha256 is not the recorded one"),
        ("longer", "is longer than the recorded"),
        ("missing", "is missing, and the index lists it"),
        ("broken", "cannot be read (status 503)"),
    ],
)
def test_a_bad_server(server, tmp_path: pathlib.Path, name: str, fault: str, said: str) -> None:
    server.faults[f"1.2.0/{name}"] = fault
    sentence = refusal(server.url, tmp_path / "new" / "out")
    assert f"{server.url}/small-cell/1.2.0/{name} " in sentence
    assert said in sentence


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("truncate", "index.json broke off before its end"),
        ("missing", "is not a zoo: it has no index.json"),
        ("broken", "index.json cannot be read (status 503)"),
    ],
)
def test_a_bad_server_from_the_beginning(server, tmp_path: pathlib.Path, fault: str, said: str) -> None:
    server.faults["index.json"] = fault
    assert said in refusal(server.url, tmp_path / "out")


@pytest.mark.parametrize("name", ["index.json", "weights.safetensors"])
def test_a_server_that_does_not_answer(server, tmp_path: pathlib.Path, name: str, monkeypatch) -> None:
    monkeypatch.setattr(_transport, "TIMEOUT_SECONDS", 0.25)
    server.faults[name] = "stall"
    assert f"{name} did not answer within 0.25 seconds; try again later" in refusal(server.url, tmp_path / "out")


def test_a_server_that_is_not_there(tmp_path: pathlib.Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        sentence = refusal(url, tmp_path / "out")
    assert f"{url}/index.json cannot be read" in sentence
    assert "check the address and the network" in sentence


def test_a_protocol_that_is_none(tmp_path: pathlib.Path) -> None:
    assert "Protocol not known: gopher" in refusal("gopher://zoo", tmp_path / "out")


def test_offline_reads_folders_and_nothing_else(server, zoo_folder, tmp_path: pathlib.Path, monkeypatch) -> None:
    monkeypatch.setenv("MNEMO_OFFLINE", "1")
    assert "is not read because MNEMO_OFFLINE is set" in refusal(server.url, tmp_path / "out")
    assert not server.asked
    download(str(zoo_folder), tmp_path / "out")
    monkeypatch.setenv("MNEMO_OFFLINE", "0")
    download(server.url, tmp_path / "other")


def test_the_same_bundle_may_be_there_already(server, tmp_path: pathlib.Path) -> None:
    download(server.url, tmp_path / "out")
    asked = server.asked["/small-cell/1.2.0/weights.safetensors"]
    download(server.url, tmp_path / "out")
    assert server.asked["/small-cell/1.2.0/weights.safetensors"] == asked


@pytest.mark.parametrize("there", ["another version", "a damaged file", "one more file", "a file"])
def test_something_else_is_left_as_it_is(zoo_folder, tmp_path: pathlib.Path, there: str) -> None:
    out = tmp_path / "out"
    if there == "a file":
        out.write_text("mine")
    else:
        download(str(zoo_folder), out, "small-cell@1.0.0" if there == "another version" else "small-cell")
    if there == "a damaged file":
        (out / "cell.json").write_text("{}")
    if there == "one more file":
        (out / "notes.txt").write_text("mine")
    before = {path: path.read_bytes() for path in (out, *out.rglob("*")) if path.is_file()}
    assert str(out) in refusal(str(zoo_folder), out)
    assert {path: path.read_bytes() for path in before} == before


def test_a_folder_that_cannot_be_written(zoo_folder: pathlib.Path) -> None:
    with pytest.raises(MnemoError, match="/proc/none/out cannot be written"):
        download(str(zoo_folder), pathlib.Path("/proc/none/out"))


def test_a_full_disk(zoo_folder: pathlib.Path, tmp_path: pathlib.Path, monkeypatch) -> None:
    def fail(path: pathlib.Path, content: bytes) -> None:
        path.write_bytes(content[:7])
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(_fetch, "write_file", fail)
    sentence = refusal(str(zoo_folder), tmp_path / "out")
    assert "cannot be written (No space left on device); free some space" in sentence


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), name=st.sampled_from(BUNDLE_FILES), bit=st.integers(0, 7))
def test_any_flipped_bit_in_a_zoo_is_found(zoo_folder, data: st.DataObject, name: str, bit: int) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(shutil.copytree(zoo_folder, pathlib.Path(temporary) / "zoo"))
        path = folder / "small-cell" / "1.2.0" / name
        content = bytearray(path.read_bytes())
        content[data.draw(st.integers(0, len(content) - 1), "place")] ^= 1 << bit
        path.write_bytes(content)
        zoo = open_zoo(str(folder))
        with pytest.raises(MnemoError, match=f"{name} is damaged"):
            zoo.load(zoo.index.find(parse_reference("small-cell")))
        with pytest.raises(MnemoError, match=f"{name} is damaged"):
            zoo.download(zoo.index.find(parse_reference("small-cell")), pathlib.Path(temporary) / "out")
        assert not (pathlib.Path(temporary) / "out").exists()


def test_the_cache_is_read_instead_of_the_server(server, own_cache: pathlib.Path) -> None:
    first = open_zoo(server.url).load(find(server.url))
    assert sorted(path.name for path in (own_cache / "bundles" / find(server.url).address).iterdir()) == sorted(
        BUNDLE_FILES
    )
    for name in BUNDLE_FILES:
        server.faults[name] = "missing"
    assert open_zoo(server.url).load(find(server.url)).digest == first.digest


def test_a_cache_that_was_damaged_is_filled_again(server, own_cache: pathlib.Path) -> None:
    digest = open_zoo(server.url).load(find(server.url)).digest
    weights = own_cache / "bundles" / find(server.url).address / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    assert open_zoo(server.url).load(find(server.url)).digest == digest
    assert load_bundle(weights.parent).digest == digest


def test_versions_with_the_same_weights_do_not_meet_in_the_cache(server, zoo_folder, freeze_small) -> None:
    from mnemo_compile.zoo import publish

    publish(freeze_small(9), zoo_folder, name="twin", version="3.0.0")
    twins = [open_zoo(server.url).load(find(server.url, name)) for name in ("twin", "other-cell")]
    assert [twin.name for twin in twins] == ["twin", "other-cell"]
    assert twins[0].digest == twins[1].digest


def test_many_at_once_fetch_once(server) -> None:
    results, errors = [], []

    def load() -> None:
        try:
            results.append(open_zoo(server.url).load(find(server.url)).digest)
        except MnemoError as error:
            errors.append(error)

    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert len(set(results)) == 1
    assert server.asked["/small-cell/1.2.0/weights.safetensors"] == 1


def test_a_cache_that_cannot_be_written(server, monkeypatch) -> None:
    monkeypatch.setenv("MNEMO_CACHE", "/proc/none")
    with pytest.raises(MnemoError, match="/proc/none/bundles/.* cannot be written"):
        open_zoo(server.url).load(find(server.url))


def change_index(folder: pathlib.Path, change) -> None:
    path = folder / "index.json"
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


@pytest.mark.parametrize("name", ["../evil", "/etc", "a/b", "..", ".", "a\\b", "C:", ""])
@pytest.mark.parametrize("key", ["name", "version"])
def test_an_index_whose_names_lead_elsewhere(zoo_folder, tmp_path, key: str, name: str) -> None:
    change_index(zoo_folder, lambda data: data["entries"][0].update({key: name}))
    assert f"entries.0.{key}" in refusal(str(zoo_folder), tmp_path / "out")


def test_an_index_whose_files_lead_elsewhere(zoo_folder, tmp_path: pathlib.Path) -> None:
    def change(data: dict) -> None:
        files = data["entries"][0]["files"]
        files["../../cell.json"] = files.pop("cell.json")

    change_index(zoo_folder, change)
    assert "entries.0.files" in refusal(str(zoo_folder), tmp_path / "out")


def test_an_index_that_lists_a_version_twice(zoo_folder, tmp_path: pathlib.Path) -> None:
    change_index(zoo_folder, lambda data: data["entries"].append(data["entries"][0]))
    assert "is listed twice" in refusal(str(zoo_folder), tmp_path / "out")


def test_an_index_that_promises_another_cell(zoo_folder, tmp_path: pathlib.Path) -> None:
    change_index(zoo_folder, lambda data: [entry.update(digest="ab" * 32) for entry in data["entries"]])
    assert "the index of the zoo has small-cell@1.2.0 with digest abababababab" in refusal(
        str(zoo_folder), tmp_path / "out"
    )
    with pytest.raises(MnemoError, match="index of the zoo has"):
        open_zoo(str(zoo_folder)).load(find(str(zoo_folder)))


@pytest.mark.parametrize("raw", [b"", b"{", b"<html>", b"\xff", b"[]"])
def test_an_index_that_is_none(zoo_folder, tmp_path: pathlib.Path, raw: bytes) -> None:
    (zoo_folder / "index.json").write_bytes(raw)
    assert "index.json is not valid" in refusal(str(zoo_folder), tmp_path / "out")


def test_an_index_of_a_newer_schema(zoo_folder, tmp_path: pathlib.Path) -> None:
    change_index(zoo_folder, lambda data: data.update(schema_version=2, written_by="7.0.0"))
    assert "run: pip install 'mnemo-compile>=7.0.0'" in refusal(str(zoo_folder), tmp_path / "out")


@pytest.mark.parametrize("location", ["", "none/such"])
def test_a_folder_that_is_no_zoo(tmp_path: pathlib.Path, location: str) -> None:
    assert "is not a zoo: it has no index.json" in refusal(str(tmp_path / location), tmp_path / "out")
