"""Golden pixels: what a stored image becomes in RGB, and what is said of files that are none."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from poise.data.samples.decoding import MAX_PIXELS, decode
from poise.errors import InputError

RED, GREEN, BLUE, WHITE, BLACK = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0)


def stored(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def pixels_of(data: bytes) -> list[list[tuple[int, ...]]]:
    image = decode(data, "here")
    assert image.mode == "RGB"
    return [[tuple(pixel) for pixel in row] for row in np.asarray(image).tolist()]


def test_gray_of_sixteen_bits_is_scaled_and_not_clipped() -> None:
    values = np.array([[0, 128, 129, 257, 32896, 65535]], dtype=np.uint16)
    expected = [0, 0, 1, 1, 128, 255]  # round(value / 257)
    for kind in ("PNG", "TIFF"):
        assert pixels_of(stored(Image.fromarray(values), kind)) == [[(v, v, v) for v in expected]]


def test_a_portable_graymap_of_sixteen_bits_is_scaled_too() -> None:
    assert pixels_of(b"P5 2 1 65535\n" + struct.pack(">2H", 257, 65535)) == [[(1, 1, 1), WHITE]]


@pytest.mark.parametrize("kind", [np.int32, np.float32])
def test_values_of_thirty_two_bits_are_refused_because_their_range_is_unknown(kind) -> None:
    data = stored(Image.fromarray(np.ones((1, 1), dtype=kind)), "TIFF")
    with pytest.raises(InputError, match=r"^scan\.tif has 32 bits per pixel, whose range is not known; convert it"):
        decode(data, "scan.tif")


def test_transparency_is_laid_over_white() -> None:
    half = Image.new("RGBA", (1, 1), (255, 0, 0, 128))
    assert pixels_of(stored(half)) == [[(255, 127, 127)]]
    hidden = Image.new("RGBA", (1, 1), (0, 0, 0, 0))
    assert pixels_of(stored(hidden)) == [[WHITE]]
    gray = Image.new("LA", (1, 1), (0, 128))
    assert pixels_of(stored(gray)) == [[(127, 127, 127)]]


def test_a_palette_gives_its_colours_and_its_transparent_one_is_white() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([*RED, *BLUE])
    image.putpixel((1, 0), 1)
    assert pixels_of(stored(image)) == [[RED, BLUE]]
    assert pixels_of(stored(image, transparency=0)) == [[WHITE, BLUE]]
    assert pixels_of(stored(image, "GIF", transparency=1)) == [[RED, WHITE]]


def test_a_transparent_colour_of_an_image_without_alpha_is_white() -> None:
    assert pixels_of(stored(Image.new("RGB", (1, 1), RED), transparency=RED)) == [[WHITE]]
    assert pixels_of(stored(Image.new("L", (1, 1), 7), transparency=7)) == [[WHITE]]


def test_printers_colours_gray_and_bits_become_rgb() -> None:
    assert pixels_of(stored(Image.new("CMYK", (1, 1), (0, 255, 255, 0)), "TIFF")) == [[RED]]
    assert pixels_of(stored(Image.new("CMYK", (1, 1), (0, 0, 0, 255)), "TIFF")) == [[BLACK]]
    assert pixels_of(stored(Image.new("L", (1, 1), 7))) == [[(7, 7, 7)]]
    assert pixels_of(stored(Image.new("1", (1, 1), 1))) == [[WHITE]]


# The picture is [[red, green], [blue, white]] when it is upright.
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation_comes_out_upright(orientation: int) -> None:
    upright = np.array([[RED, GREEN], [BLUE, WHITE]], dtype=np.uint8)
    # How a camera that is held like this stores the picture, as the EXIF standard numbers it.
    as_stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: upright.transpose(1, 0, 2)[::-1],
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: upright.transpose(1, 0, 2)[:, ::-1],
    }[orientation]
    tag = Image.Exif()
    tag[0x0112] = orientation
    data = stored(Image.fromarray(np.ascontiguousarray(as_stored)), exif=tag)
    assert pixels_of(data) == [[RED, GREEN], [BLUE, WHITE]]


def test_unreadable_metadata_does_not_cost_the_pixels() -> None:
    data = stored(Image.new("RGB", (1, 1), RED), exif=b"Exif\x00\x00broken beyond repair")
    assert pixels_of(data) == [[RED]]


def test_of_an_animation_the_first_picture_is_taken() -> None:
    frames = [Image.new("RGB", (1, 1), colour) for colour in (RED, BLUE)]
    assert pixels_of(stored(frames[0], "PNG", save_all=True, append_images=frames[1:])) == [[RED]]


def test_a_file_is_read_by_its_path_whatever_its_name(tmp_path: Path) -> None:
    path = tmp_path / "ein Wäldchen, von 上 (1).jpg"
    path.write_bytes(stored(Image.new("RGB", (3, 2), RED)))
    assert decode(path, str(path)).size == (3, 2)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.jpg cannot be read: No such file or directory; replace it, or "):
        decode(tmp_path / "none.jpg", str(tmp_path / "none.jpg"))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "the file is empty"),
        (b"\n<!DOCTYPE html><title>404</title>", "it holds a web page, as a failed download does"),
        (b"hello world", "it begins with b'hello wo'"),
        (b"\x89PNG\r\n\x1a\n", "it begins as one, and is truncated or damaged"),
    ],
)
def test_what_is_no_image_is_described(data: bytes, reason: str) -> None:
    with pytest.raises(InputError) as caught:
        decode(data, "a.jpg")
    remedy = 'replace it, leave it out, or skip broken ones (broken="skip")'
    assert str(caught.value) == f"a.jpg is no image: {reason}; {remedy}"


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
def test_a_truncated_image_of_any_kind_is_named(kind: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    data = stored(Image.fromarray(noise), kind)
    with pytest.raises(InputError, match=r"^a\.jpg is (truncated or damaged \(|no image: )"):
        decode(data[: len(data) // 2], "a.jpg")


def test_damaged_pixels_are_not_shown_as_gray_because_of_metadata() -> None:
    tag = Image.Exif()
    tag[0x0112] = 6
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    data = stored(Image.fromarray(noise), "JPEG", exif=tag)
    with pytest.raises(InputError, match="truncated or damaged"):
        decode(data[: len(data) // 2], "a.jpg")


def test_the_limit_of_pixels_is_exact_and_configurable() -> None:
    data = stored(Image.new("RGB", (10, 10)))
    assert decode(data, "a.png", limit=100).size == (10, 10)
    with pytest.raises(
        InputError, match=r"^a\.png has 10 x 10 pixels, more than 99; scale it down, or raise the limit$"
    ):
        decode(data, "a.png", limit=99)


@pytest.mark.parametrize("pixels", [60, 40])  # Pillow warns above its limit, and raises above twice of it
def test_an_image_that_pillow_holds_for_a_bomb_is_refused(monkeypatch, pixels: int) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", pixels)
    with pytest.raises(InputError, match=r"^a\.png has too many pixels \(.*\); scale it down$"):
        decode(stored(Image.new("RGB", (10, 10))), "a.png")


@pytest.mark.filterwarnings("ignore")
def test_a_bomb_of_few_bytes_is_refused_before_it_is_unpacked() -> None:
    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">2I5B", 10_000, 10_000, 8, 0, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")
    assert MAX_PIXELS < 10_000 * 10_000
    with pytest.raises(InputError, match=rf"^b\.png has 10000 x 10000 pixels, more than {MAX_PIXELS};"):
        decode(bomb, "b.png")
