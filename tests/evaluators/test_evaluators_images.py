import sys

import numpy as np
import pytest
from PIL import Image

from amct_lite.errors import FileError, OptionalDependencyError, ParameterError
from amct_lite.evaluators import Batches, ImageData, ImagePreprocessing
from amct_lite.evaluators.labels import find_labelled_images, read_labels

PLAIN = ImagePreprocessing()


def save_image(file, height=4, width=6, colour=(10, 20, 30)):
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((height, width, 3), colour, np.uint8)).save(file)
    return file


def test_image_becomes_nchw_in_the_order_mean_scale_std(tmp_path):
    file = save_image(tmp_path / "a.png")
    data = ImageData([file], preprocessing=ImagePreprocessing(channels="BGR", mean=(1, 2, 3), scale=2, std=(1, 2, 4)))
    pixels = data.read(0, 1)
    assert pixels.shape == (1, 3, 4, 6)
    assert pixels.dtype == np.float32
    assert pixels[0, :, 0, 0].tolist() == [58.0, 18.0, 3.5]


def test_crop_takes_the_centre():
    image = Image.fromarray(np.arange(5 * 7, dtype=np.uint8).reshape(5, 7))
    cropped = ImagePreprocessing(crop=(3, 1), channels="GRAY").apply(image)
    assert cropped.tolist() == [[[10.0], [17.0], [24.0]]]


@pytest.mark.parametrize(("resize", "shape"), [(8, (3, 8, 12)), ((5, 7), (3, 5, 7)), (3, (3, 3, 4))])
def test_resize_keeps_the_ratio_for_one_number_and_takes_two_as_they_are(resize, shape):
    image = Image.fromarray(np.zeros((4, 6, 3), np.uint8))
    assert ImagePreprocessing(resize=resize).apply(image).shape == shape


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "1"])
def test_any_image_mode_gives_three_channels(mode):
    assert PLAIN.apply(Image.new(mode, (3, 2))).shape == (3, 2, 3)


@pytest.mark.parametrize(
    "parameters", [{"channels": "HSV"}, {"mean": (1, 2)}, {"std": 0}, {"scale": float("nan")}, {"crop": 0}]
)
def test_preprocessing_that_makes_no_sense_is_refused(parameters):
    with pytest.raises(ParameterError, match=next(iter(parameters))):
        ImagePreprocessing(**parameters)


def test_crop_larger_than_the_image_names_the_file(tmp_path):
    data = ImageData([save_image(tmp_path / "small.png")], preprocessing=ImagePreprocessing(crop=5))
    with pytest.raises(ParameterError, match=r"small.png.*5 x 5 is larger .* 4 x 6.*'resize'"):
        data.read(0, 1)


def test_images_that_differ_in_size_are_an_error_with_both_shapes(tmp_path):
    files = [save_image(tmp_path / "a.png"), save_image(tmp_path / "b.png", height=5)]
    with pytest.raises(ParameterError, match=r"\(3, 4, 6\).*\(3, 5, 6\)"):
        ImageData(files, preprocessing=PLAIN).read(0, 2)


def test_file_that_is_no_image_is_an_error_with_its_name(tmp_path):
    (tmp_path / "bad.png").write_text("no image")
    with pytest.raises(FileError, match=r"bad\.png"):
        ImageData.from_folder(tmp_path, preprocessing=PLAIN).read(0, 1)


def test_labels_csv_in_every_form_is_read(tmp_path):
    forms = {
        "bare": "a.png,3\nb.png,1|2\n",
        "extra": "a.png,3,animals\nb.png,1|2,plants\n",
        "header": "file,label\na.png,3\n\nb.png,1|2\n",
        "moved": "name,class_index,file\nx,3,a.png\ny,1|2,b.png\n",
        "bom": "\ufefffile,label\r\na.png, 3\r\nb.png,1|2",
    }
    for name, text in forms.items():
        file = tmp_path / f"{name}.csv"
        file.write_text(text, encoding="utf-8")
        assert read_labels(file) == [("a.png", (3,)), ("b.png", (1, 2))], name


@pytest.mark.parametrize(
    "text", ["a.png\n", "a.png,cat\n", "a.png,-1\n", "image,label\na.png,1\n", ",1\n", "a.png,1|\n"]
)
def test_line_without_file_and_class_is_an_error_with_its_number(tmp_path, text):
    (tmp_path / "labels.csv").write_text(text)
    with pytest.raises(FileError, match="Line 1 of"):
        read_labels(tmp_path / "labels.csv")


def test_labels_file_that_is_missing_or_empty_is_an_error(tmp_path):
    (tmp_path / "labels.csv").write_text("file,label\n")
    for name in ("labels.csv", "missing.csv"):
        with pytest.raises(FileError, match=name):
            read_labels(tmp_path / name)


@pytest.mark.parametrize("name", ["../a.png", "/a.png", "missing.png"])
def test_image_outside_the_folder_or_missing_is_an_error(tmp_path, name):
    save_image(tmp_path / "a.png")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "labels.csv").write_text(f"{name},1\n")
    with pytest.raises(FileError, match=name):
        find_labelled_images(tmp_path / "in")


def test_sub_folders_are_classes_in_sorted_order(tmp_path):
    for name in ("dog/1.png", "cat/2.jpg", "cat/1.jpg"):
        save_image(tmp_path / name)
    (tmp_path / "notes").mkdir()
    data = ImageData.from_folder(tmp_path, preprocessing=PLAIN)
    assert [str(file.relative_to(tmp_path)) for file in data.files] == ["cat/1.jpg", "cat/2.jpg", "dog/1.png"]
    assert data.accepted.tolist() == [[0], [0], [1]]


def test_sub_folders_with_numbers_for_names_are_these_classes(tmp_path):
    for name in ("10/a.png", "2/a.png"):
        save_image(tmp_path / name)
    assert ImageData.from_folder(tmp_path, preprocessing=PLAIN).accepted.tolist() == [[10], [2]]


def test_folder_of_images_alone_has_no_labels(tmp_path):
    save_image(tmp_path / "b.png")
    save_image(tmp_path / "a.png")
    data = ImageData.from_folder(tmp_path, preprocessing=PLAIN)
    assert [file.name for file in data.files] == ["a.png", "b.png"]
    assert data.accepted is None


def test_folder_without_images_or_missing_is_an_error(tmp_path):
    for folder in (tmp_path, tmp_path / "missing"):
        with pytest.raises(FileError, match=str(folder)):
            ImageData.from_folder(folder, preprocessing=PLAIN)


def test_images_are_decoded_batch_by_batch(tmp_path):
    for index in range(3):
        save_image(tmp_path / f"{index}.png", colour=(index, 0, 0))
    data = ImageData.from_folder(tmp_path, preprocessing=PLAIN)
    batches = iter(Batches(data, batch_size=1))
    assert next(batches)[0, 0, 0, 0] == 0
    (tmp_path / "1.png").unlink()  # the second image has not been touched yet
    with pytest.raises(FileError, match=r"1\.png"):
        next(batches)


def test_select_takes_labels_along(tmp_path):
    save_image(tmp_path / "a" / "1.png")
    save_image(tmp_path / "b" / "2.png")
    part = ImageData.from_folder(tmp_path, preprocessing=PLAIN).select(slice(1, None))
    assert (part.files[0].name, part.accepted.tolist()) == ("2.png", [[1]])


def test_without_pillow_the_error_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(OptionalDependencyError, match=r"pip install amct-lite\[images\]"):
        ImageData([tmp_path / "a.png"], preprocessing=PLAIN)
