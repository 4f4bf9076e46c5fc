"""No path, link or special file leads out of a root; a file appears whole or not at all."""

from __future__ import annotations

import os
import stat
import tempfile
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tenantry import paths
from tenantry.errors import PathEscape

PARTS = st.one_of(
    st.sampled_from(
        ["..", ".", "", "link", "inside", "up", "file", "loop", "~", "a\0b", "\\..", "C:", "..%2f", "．．"]
    ),
    st.text(max_size=12),
    st.text(st.characters(), max_size=4),
)
PATHS = st.lists(PARTS, min_size=1, max_size=6).map("/".join)


def snapshot(folder: Path) -> dict[str, bytes | None]:
    """Every file below a folder with its content, every directory and link with None."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() and not path.is_symlink() else None
        for path in folder.rglob("*")
    }


def plant(base: Path) -> tuple[Path, Path]:
    """A root with links that lead out of it in every way, and the outside they lead to."""
    root, outside = base / "root", base / "outside"
    (root / "inside").mkdir(parents=True)
    (outside / "inside").mkdir(parents=True)
    (outside / "file").write_text("secret")
    (outside / "inside" / "file").write_text("secret")
    (root / "file").write_text("own")
    (root / "link").symlink_to(outside)
    (root / "up").symlink_to("..")
    (root / "loop").symlink_to("loop")
    (root / "inside" / "link").symlink_to(outside / "file")
    (root / "inside" / "up").symlink_to("../..")
    return root, outside


@given(path=PATHS)
@example("../outside/file")
@example("link/file")
@example("up/outside/file")
@example("inside/link")
@example("inside/up/outside/file")
@example("/etc/passwd")
@example("file\0")
@example("\ud800")
@example("\udcff")
def test_no_path_reads_writes_or_removes_outside(path: str) -> None:
    """Whatever the path, nothing outside the root is read, written, made or removed."""
    with tempfile.TemporaryDirectory() as folder:
        root, outside = plant(Path(folder))
        before, beside = snapshot(outside), set(Path(folder).iterdir())
        with suppress(OSError, PathEscape):
            assert paths.read_beneath(root, path) != b"secret"
        with suppress(OSError, PathEscape):
            paths.write_beneath(root, path, b"written")
        with suppress(OSError, PathEscape):
            paths.open_beneath(root, path, "ab").close()
        with suppress(OSError, PathEscape):
            paths.make_beneath(root, path)
        with suppress(OSError, PathEscape):
            assert not {entry.name for entry in paths.list_beneath(root, path)} & {"outside", "root"}
        with suppress(OSError, PathEscape):
            paths.remove_beneath(root, path)
        assert snapshot(outside) == before
        assert set(Path(folder).iterdir()) == beside


@given(
    path=st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=8), min_size=1, max_size=4).map("/".join)
)
def test_accepted_paths_round_trip(path: str) -> None:
    """A path that is accepted holds exactly what was written there, below the root."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        try:
            paths.write_beneath(root, path, b"content")
        except PathEscape:
            return
        assert (root / path).resolve().is_relative_to(root.resolve())
        assert paths.read_beneath(root, path) == (root / path).read_bytes() == b"content"
        assert paths.remove_beneath(root, path)
        assert not (root / path).exists()


@pytest.mark.parametrize("path", ["link", "link/file", "inside/link", "up", "loop", "up/root/file"])
def test_links_are_refused_by_name(tmp_path: Path, path: str) -> None:
    """A symbolic link on the way or at the end raises `PathEscape` that names the path, even if it leads back in."""
    root, _ = plant(tmp_path)
    with pytest.raises(PathEscape, match=path.split("/")[0]):
        paths.open_beneath(root, path)


def test_pipes_and_directories_are_no_files(tmp_path: Path) -> None:
    """A pipe neither opens nor holds the caller; a directory raises what `open` raises."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "directory").mkdir()
    for mode in ("rb", "wb"):
        with pytest.raises(PathEscape):
            paths.open_beneath(tmp_path, "pipe", mode)
    with pytest.raises(IsADirectoryError):
        paths.open_beneath(tmp_path, "directory")


def test_removing_a_tree_leaves_what_its_links_lead_to(tmp_path: Path) -> None:
    """A removed directory takes its links with it and nothing behind them."""
    root, outside = plant(tmp_path)
    before = snapshot(outside)
    assert paths.remove_beneath(root, "inside")
    assert paths.remove_beneath(root, "link")
    assert not paths.remove_beneath(root, "link")
    assert snapshot(outside) == before


def test_measuring_and_listing_stay_inside(tmp_path: Path) -> None:
    """Links are listed as links and their targets are not counted."""
    root, _ = plant(tmp_path)
    assert paths.measure_beneath(root) == paths.Usage(bytes=3, files=1)
    assert {entry.name: entry.kind for entry in paths.list_beneath(root)} == {
        "file": "file",
        "inside": "directory",
        "link": "link",
        "loop": "link",
        "up": "link",
    }


def test_a_failed_write_leaves_the_old_file_and_nothing_beside(tmp_path: Path) -> None:
    """A block that fails keeps the old content and its half file vanishes."""
    paths.write_beneath(tmp_path, "a/b", b"old", permissions=0o640)
    with suppress(RuntimeError), paths.replace_beneath(tmp_path, "a/b") as file:
        file.write(b"half")
        raise RuntimeError
    assert list((tmp_path / "a").iterdir()) == [tmp_path / "a" / "b"]
    assert (tmp_path / "a" / "b").read_bytes() == b"old"
    assert stat.S_IMODE((tmp_path / "a" / "b").stat().st_mode) == 0o640


def test_only_files_of_dead_makers_are_cleared(tmp_path: Path) -> None:
    """A file in the making is removed when its maker is gone, and kept while it is at work."""
    (tmp_path / f"{paths.TEMPORARY}dead").write_text("half")
    with paths.replace_beneath(tmp_path, "alive") as file:
        file.write(b"whole")
        assert paths.clear_temporary(tmp_path) == [f"{paths.TEMPORARY}dead"]
    assert paths.read_beneath(tmp_path, "alive") == b"whole"
    assert list(tmp_path.iterdir()) == [tmp_path / "alive"]


def test_names_of_files_in_the_making_are_refused(tmp_path: Path) -> None:
    """A caller cannot hide a file behind the names Tenantry keeps for files in the making."""
    with pytest.raises(PathEscape, match="keeps for itself"):
        paths.write_beneath(tmp_path, f"a/{paths.TEMPORARY}x", b"")


def test_deep_clearing_follows_no_link(tmp_path: Path) -> None:
    """Files in the making are cleared from all directories below, whole directories too, and none behind a link."""
    root, outside = plant(tmp_path)
    for folder in (root / "inside", outside):
        (folder / f"{paths.TEMPORARY}dead").write_text("half")
    (root / f"{paths.TEMPORARY}tree" / "deep").mkdir(parents=True)
    assert paths.clear_temporary(root, deep=True) == [f"{paths.TEMPORARY}tree", f"inside/{paths.TEMPORARY}dead"]
    assert (outside / f"{paths.TEMPORARY}dead").exists()


def test_a_copied_tree_is_whole_and_holds_nothing_from_outside(tmp_path: Path) -> None:
    """A copy has the files with their modes and times, leaves links and pipes out, and takes an older copy's place."""
    root, _ = plant(tmp_path)
    os.mkfifo(root / "inside" / "pipe")
    paths.write_beneath(root, "inside/deep/file", b"own", permissions=0o640)
    os.utime(root / "inside" / "deep" / "file", ns=(10**18, 10**18))
    for _ in range(2):
        paths.copy_beneath(root, "inside", tmp_path, "copies/one")
    assert snapshot(tmp_path / "copies") == {"one": None, "one/deep": None, "one/deep/file": b"own"}
    copied = (tmp_path / "copies" / "one" / "deep" / "file").stat()
    assert (stat.S_IMODE(copied.st_mode), copied.st_mtime_ns) == (0o640, 10**18)
