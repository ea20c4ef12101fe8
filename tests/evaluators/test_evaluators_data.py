import numpy as np
import pytest

from amct_lite.errors import FileError, ParameterError
from amct_lite.evaluators import ArrayData, Batches, DataSource
from amct_lite.evaluators.data import accepted_classes, as_data_source


def test_batches_cover_every_sample_once_and_may_be_iterated_again():
    inputs = np.arange(14).reshape(7, 2)
    batches = Batches(ArrayData(inputs), batch_size=3)
    assert len(batches) == 3
    for _ in range(2):
        assert [len(batch) for batch in batches] == [3, 3, 1]
        np.testing.assert_array_equal(np.concatenate(list(batches)), inputs)


def test_batches_stop_after_batch_num():
    data = ArrayData(np.zeros((7, 2)))
    assert len(list(Batches(data, 2, batch_num=2))) == 2
    assert len(list(Batches(data, 2, batch_num=99))) == 4


def test_named_arrays_are_cut_together():
    data = ArrayData({"left": np.arange(4), "right": np.arange(4) * 10})
    cut = data.read(1, 3)
    assert {name: array.tolist() for name, array in cut.items()} == {"left": [1, 2], "right": [10, 20]}


def test_select_takes_labels_along():
    part = ArrayData(np.arange(5), labels=[0, 1, 2, (3, 4), 4]).select([3, 0])
    assert part.read(0, 2).tolist() == [3, 0]
    assert part.accepted.tolist() == [[3, 4], [0, -1]]
    assert len(part.select(slice(0, 1))) == 1


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, "same number of samples"),
        (np.zeros((0, 3)), "no samples"),
        (np.float32(3), "no samples"),
        (np.array(["a"]), "must be numeric"),
        ({"a": np.zeros(3), "b": np.zeros(4)}, "{'a': 3, 'b': 4}"),
    ],
)
def test_arrays_that_are_no_samples_are_refused(inputs, message):
    with pytest.raises(ParameterError, match=message):
        ArrayData(inputs)


@pytest.mark.parametrize("labels", [[0, -1], [0, 1.0], [0, True], [0, "cat"], [0, ()], np.eye(2)])
def test_labels_that_are_no_class_index_are_refused(labels):
    with pytest.raises(ParameterError, match="must be a class index"):
        accepted_classes(labels, 2)


@pytest.mark.parametrize("num_labels", [2, 4])
def test_another_number_of_labels_than_samples_is_refused(num_labels):
    with pytest.raises(ParameterError, match=f"{num_labels} labels for 3 samples"):
        ArrayData(np.zeros((3, 2)), labels=[0] * num_labels)


def test_labels_of_any_integer_dtype_are_taken():
    for dtype in (np.uint8, np.int32, np.int64):
        assert accepted_classes(np.array([1, 2], dtype), 2).tolist() == [[1], [2]]


def test_npz_with_one_input_and_labels(tmp_path):
    file = tmp_path / "data.npz"
    np.savez(file, anything=np.ones((2, 3)), labels=np.array([1, 0]))
    data = ArrayData.from_npz(file)
    assert data.read(0, 2).shape == (2, 3)
    assert data.accepted.tolist() == [[1], [0]]


def test_npz_with_several_inputs_keeps_their_names(tmp_path):
    file = tmp_path / "data.npz"
    np.savez(file, a=np.ones(2), b=np.ones(2))
    data = ArrayData.from_npz(file)
    assert sorted(data.read(0, 1)) == ["a", "b"]
    assert data.accepted is None


def test_npz_that_is_missing_broken_pickled_or_empty_is_an_error_with_its_name(tmp_path):
    broken, pickled, only_labels = tmp_path / "b.npz", tmp_path / "p.npz", tmp_path / "l.npz"
    broken.write_bytes(b"PK no archive")
    np.savez(pickled, x=np.array([{}], dtype=object))
    np.savez(only_labels, labels=np.array([1]))
    bare = tmp_path / "array.npz"
    with bare.open("wb") as stream:
        np.save(stream, np.ones(3))
    for file in (tmp_path / "missing.npz", broken, pickled, only_labels, bare):
        with pytest.raises(FileError, match=file.name):
            ArrayData.from_npz(file)


def test_sources_arrays_and_npz_paths_become_a_source(tmp_path):
    data = ArrayData(np.zeros(3))
    assert as_data_source(data) is data
    assert isinstance(data, DataSource)
    assert len(as_data_source(np.zeros((3, 2)))) == 3
    np.savez(tmp_path / "d.npz", x=np.zeros(4))
    assert len(as_data_source(str(tmp_path / "d.npz"))) == 4
    for wrong in (tmp_path, 3, [1, 2], None):
        with pytest.raises(ParameterError, match="must be a data source"):
            as_data_source(wrong)
