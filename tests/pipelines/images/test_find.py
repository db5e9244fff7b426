from __future__ import annotations

import os
from pathlib import Path

import pytest

from pipelines.errors import EmptyFolderError, FolderError
from pipelines.images import IMAGE_SUFFIXES, UnreadableFolder, expect_images, find_images, list_images
from pipelines.images.left_out import Reason, Tally


def touch(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def names(folder: Path) -> list[str]:
    return [file.relative for file in find_images(folder)]


def test_finds_images_in_subfolders_sorted_by_relative_name(tmp_path):
    touch(tmp_path, "b.png", "a/z.JPG", "a.tif", "B.png", "a/deep/er/1.WebP", "notes.txt", "a/noext")
    assert names(tmp_path) == ["B.png", "a.tif", "a/deep/er/1.WebP", "a/z.JPG", "b.png"]


@pytest.mark.parametrize("suffix", sorted(IMAGE_SUFFIXES))
def test_every_suffix_counts_in_upper_case_too(tmp_path, suffix):
    touch(tmp_path, "a" + suffix, "b" + suffix.upper())
    assert len(find_images(tmp_path)) == 2


def test_states_path_size_and_time(tmp_path):
    (tmp_path / "a.png").write_bytes(b"12345")
    os.utime(tmp_path / "a.png", ns=(0, 1_234_567_891))
    (file,) = find_images(tmp_path)
    assert (file.path, file.size, file.mtime_ns) == (tmp_path / "a.png", 5, 1_234_567_891)


def test_hidden_files_and_folders_are_left_out(tmp_path):
    touch(tmp_path, "a.png", ".b.png", "._a.png", ".cache/c.png", ".png")
    assert names(tmp_path) == ["a.png"]


def test_linked_files_are_followed_and_keep_their_own_name(tmp_path):
    touch(tmp_path, "elsewhere/original.dat", "images/a.png")
    (tmp_path / "images/link.jpg").symlink_to(tmp_path / "elsewhere/original.dat")
    (file, link) = find_images(tmp_path / "images")
    assert (file.relative, link.relative, link.size) == ("a.png", "link.jpg", 1)


def test_a_link_to_a_file_that_is_gone_is_listed(tmp_path):
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere")
    (tmp_path / "itself.png").symlink_to(tmp_path / "itself.png")
    assert names(tmp_path) == ["gone.png", "itself.png"]


def test_loops_of_links_end_and_list_each_file_once(tmp_path):
    folder = tmp_path / "images"
    touch(folder, "a.png", "sub/b.png")
    touch(tmp_path, "outside.png")
    (folder / "sub/up").symlink_to(folder)
    (folder / "sub/self").symlink_to(folder / "sub/self")
    (folder / "above").symlink_to(tmp_path)  # would lead out of the folder that was asked for, and back
    (folder / "absolute").symlink_to("/")
    assert names(folder) == ["a.png", "sub/b.png"]


def test_a_linked_folder_is_listed_once_and_a_real_one_comes_before_its_links(tmp_path):
    touch(tmp_path, "elsewhere/x.png", "images/real/y.png")
    for link, target in (("a", "images/real"), ("b", "elsewhere"), ("c", "elsewhere")):
        (tmp_path / "images" / link).symlink_to(tmp_path / target)
    assert names(tmp_path / "images") == ["b/x.png", "real/y.png"]


def test_a_name_that_is_not_utf8_is_shown_as_bytes(tmp_path):
    path = os.fsencode(tmp_path) + b"/caf\xe9.png"
    Path(os.fsdecode(path)).write_bytes(b"x")
    (file,) = find_images(tmp_path)
    assert file.relative == r"caf\xe9.png"
    assert file.path.read_bytes() == b"x"


def test_different_names_stay_different(tmp_path):
    for name in (b"\xe9.png", rb"\xe9.png", rb"\x5cxe9.png", "é.png".encode(), b"line\nbreak.png"):
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name)).write_bytes(b"x")
    found = names(tmp_path)
    assert found == sorted([r"\xe9.png", r"\x5cxe9.png", r"\x5cx5cxe9.png", "é.png", "line\nbreak.png"])
    for relative in found:
        relative.encode()  # fit for Parquet and CSV


def test_copies_that_programs_keep_are_no_images_of_their_own(tmp_path):
    picture = b"P5 1 1 255\n\0"
    for name in ("a.png", "scan_original", "a.png~", "b.jpg_original", "#c.png#"):
        (tmp_path / name).write_bytes(picture)
    found = list_images(tmp_path)
    assert [file.relative for file in found.files] == ["a.png", "scan_original"]
    assert {row["why"] for row in found.left_out.rows} == {"unfinished or a backup"}
    assert found.left_out.files == 3


def test_a_pipe_is_not_an_image(tmp_path):
    touch(tmp_path, "a.png")
    os.mkfifo(tmp_path / "pipe.png")
    assert names(tmp_path) == ["a.png"]


@pytest.fixture
def lock(monkeypatch):
    """Refuse to list every folder called `locked`: permissions do not bind root, who may run the tests."""
    scandir = os.scandir

    def refuse(path: str) -> object:
        if path.endswith("locked"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)


def test_a_subfolder_that_may_not_be_read_is_left_out_with_a_warning(tmp_path, lock, caplog):
    touch(tmp_path, "a.png", "locked/b.png")
    assert names(tmp_path) == ["a.png"]
    assert caplog.messages == ["left out the folder locked/: Permission denied"]


def test_a_subfolder_that_may_not_be_read_is_named_in_the_listing(tmp_path, lock):
    touch(tmp_path, "a.png", "z/locked/b.png", "locked/c.png")
    found = list_images(tmp_path)
    assert [file.relative for file in found.files] == ["a.png"]
    assert found.unreadable == (
        UnreadableFolder(tmp_path / "locked", "locked/", "Permission denied"),
        UnreadableFolder(tmp_path / "z/locked", "z/locked/", "Permission denied"),
    )


def test_a_folder_whose_images_may_not_be_seen_is_not_called_empty(tmp_path, lock):
    touch(tmp_path, "locked/b.png", "z/locked/b.png")
    for look in (find_images, expect_images):
        with pytest.raises(EmptyFolderError, match=r"locked/ cannot be read \(Permission denied\), nor can 1 more"):
            look(tmp_path)


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(FolderError, match="missing does not exist: give a folder with images"):
        find_images(tmp_path / "missing")


def test_a_file_is_not_a_folder(tmp_path):
    touch(tmp_path, "a.png")
    with pytest.raises(FolderError, match=r"a\.png is a file: give the folder that contains it"):
        find_images(tmp_path / "a.png")


def test_a_folder_that_may_not_be_read_is_an_error(tmp_path, monkeypatch):
    def refuse(path: str) -> object:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(FolderError, match="cannot be read: Permission denied"):
        find_images(tmp_path)


def test_an_empty_folder_says_what_was_there_and_what_was_looked_for(tmp_path):
    touch(tmp_path, "a.txt", "sub/b.xml", "c.psd", "d.raw", ".hidden.png")
    with pytest.raises(EmptyFolderError, match="4 other files were there") as caught:
        find_images(tmp_path)
    message = str(caught.value)
    assert "1 hidden" in message
    assert all(suffix in message for suffix in IMAGE_SUFFIXES)


def test_a_folder_without_any_file_says_so(tmp_path):
    with pytest.raises(EmptyFolderError, match="it holds no files"):
        find_images(tmp_path)


def test_one_image_is_all_that_is_expected(tmp_path):
    touch(tmp_path, "a.txt", "sub/b.xml")
    with pytest.raises(EmptyFolderError, match="2 other files were there"):
        expect_images(tmp_path)
    with pytest.raises(FolderError, match="missing does not exist"):
        expect_images(tmp_path / "missing")
    touch(tmp_path, "sub/c.png")
    expect_images(tmp_path)


PNG = b"\x89PNG\r\n\x1a\n" + bytes(8)


def test_a_picture_under_another_suffix_or_none_is_found_by_its_first_bytes(tmp_path):
    for name in ("a.jpe", "b.dat", "c", "d.JPX", "e.0001", "photo.of 2020"):
        (tmp_path / name).write_bytes(PNG)
    assert names(tmp_path) == ["a.jpe", "b.dat", "c", "d.JPX", "e.0001", "photo.of 2020"]


@pytest.mark.parametrize(
    "name", ["a.pdf", "a.doc", "a.xmp", "a.json", "Thumbs.db", "a.txt", "a.mp4", "a.NEF", "a.part"]
)
def test_a_picture_inside_a_file_of_another_kind_does_not_count(tmp_path, name):
    touch(tmp_path, "a.png")
    (tmp_path / name).write_bytes(PNG)
    assert names(tmp_path) == ["a.png"]


def test_text_and_other_data_under_an_unknown_suffix_are_no_pictures(tmp_path):
    touch(tmp_path, "a.png", "b")
    (tmp_path / "readme").write_text("P5 is a format of ours, BM another")
    (tmp_path / "c.dat").write_bytes(b"\x00\x01" * 99)
    (tmp_path / "empty").touch()
    os.mkfifo(tmp_path / "pipe")
    assert names(tmp_path) == ["a.png"]


def test_files_of_a_known_suffix_are_not_opened_and_of_others_a_kilobyte_is_read(tmp_path, monkeypatch):
    touch(tmp_path, "a.png", "b.JPG", "c.heic", "d.xmp", "e.mp4", "f.dat", "g")
    (tmp_path / "g").write_bytes(PNG + bytes(10**6))
    opened, asked = [], []
    open_file, read = os.open, os.read
    monkeypatch.setattr(os, "open", lambda path, flags: opened.append(Path(path).name) or open_file(path, flags))
    monkeypatch.setattr(os, "read", lambda file, size: asked.append(size) or read(file, size))
    list_images(tmp_path)
    assert (opened, asked) == (["f.dat", "g"], [1024, 1024])


def test_what_is_left_out_is_counted_by_suffix_and_reason(tmp_path):
    touch(
        tmp_path, "a.png", "b.DNG", "c/d.dng", "e.nef", "f.svg", "g.xmp", "h.xmp", "i.zzz", "j", ".k", "c/.l", "m.mov"
    )
    touch(tmp_path, "n.part", "run/.kintsugi-run/lock", "run/maps/a.png")
    left_out = list_images(tmp_path).left_out
    assert [(row["files"], row["suffix"], row["why"], row["example"]) for row in left_out.rows] == [
        (2, ".dng", "camera raw, which is not read", "b.DNG"),
        (1, ".nef", "camera raw, which is not read", "e.nef"),
        (1, ".svg", "a format that is not read", "f.svg"),
        (1, ".mov", "video", "m.mov"),
        (1, ".part", "unfinished or a backup", "n.part"),
        (2, ".xmp", "not an image", "g.xmp"),
        (1, None, "not an image", "j"),
        (1, ".zzz", "not an image", "i.zzz"),
        (2, None, "hidden", ".k"),
        (1, None, "output folder of another run", "run/"),
    ]
    assert left_out.files == 13
    assert str(left_out) == (
        "left out 13 files: 2 .dng, 1 .nef (camera raw, which is not read), "
        "1 .svg (a format that is not read), 1 .mov (video), 1 .part (unfinished or a backup), 2 .xmp (not an image), "
        "5 of other kinds; save the files that should be read as TIFF or PNG"
    )


def test_nothing_left_out_is_no_line(tmp_path, caplog):
    touch(tmp_path, "a.png")
    with caplog.at_level("INFO"):
        find_images(tmp_path)
    assert caplog.messages == []
    touch(tmp_path, "a.xmp")
    with caplog.at_level("INFO"):
        find_images(tmp_path)
    assert [(each.levelname, each.message) for each in caplog.records] == [
        ("INFO", "left out 1 file: 1 .xmp (not an image)")
    ]
    touch(tmp_path, "a.cr3")
    find_images(tmp_path)
    assert caplog.records[-1].levelname == "WARNING"


def test_names_of_a_million_kinds_are_counted_in_little_memory(tmp_path):
    tally = Tally()
    for number in range(3000):
        tally.add(Reason.OTHER, f"a.{number}")
    assert len(tally.counts) == 1001
    assert sum(row["files"] for row in tally.left_out().rows) == 3000


def test_a_file_that_may_not_be_opened_is_named_so(tmp_path, monkeypatch):
    touch(tmp_path, "a.png", "b.dat")

    def refuse(path: str, flags: int) -> int:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(os, "open", refuse)
    assert [row["why"] for row in list_images(tmp_path).left_out.rows] == ["may not be opened"]
