"""The sample trains, writes and reads what it says, on the parts of it that need no download."""

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs the extra 'train'")

from amct_lite.errors import FileError
from amct_lite.learn import NonUniformLearner
from amct_lite.samples.digits.data import MODEL_FILE, load_split
from amct_lite.samples.fine_tuning.cifar10 import load_cifar10
from amct_lite.samples.fine_tuning.run import fine_tune, run_fashion


def test_it_trains_saves_reports_and_goes_on(tmp_path, capsys):
    split = load_split()
    parts = [(part.images, part.labels) for part in (split.train, split.held_out)]
    for _ in range(2):
        saved = fine_tune(NonUniformLearner(MODEL_FILE, weight_bits=2), *parts, tmp_path, 1)
        told = capsys.readouterr().out
        assert "Top-1 on 400 test images: float 9" in told and "trained_deploy_model.onnx 9" in told
        assert all(path.exists() for path in saved.files.values())
    assert (tmp_path / "checkpoint.pt").exists()


def test_cifar10_is_read_as_its_authors_wrote_it(tmp_path):
    generator = np.random.default_rng(0)
    records = generator.integers(0, 256, (6, 3073), np.uint8)
    for number in range(5):
        (tmp_path / f"data_batch_{number + 1}.bin").write_bytes(records[number].tobytes())
    (tmp_path / "test_batch.bin").write_bytes(records[5].tobytes())
    images, labels = load_cifar10("train", tmp_path)
    assert images.shape == (5, 3, 32, 32) and labels.tolist() == records[:5, 0].tolist()
    # Red comes first, each colour row by row.
    assert images[2, 1, 3, 4] == records[2, 1 + 1024 + 3 * 32 + 4]
    assert load_cifar10("test", tmp_path)[1].tolist() == [records[5, 0]]


def test_missing_or_wrong_files_are_named(tmp_path):
    with pytest.raises(FileError, match="cifar-10-binary"):
        load_cifar10("test", tmp_path)
    (tmp_path / "test_batch.bin").write_bytes(b"short")
    with pytest.raises(FileError, match="5 bytes"):
        load_cifar10("test", tmp_path)
    with pytest.raises(FileError, match="no LeNet"):
        run_fashion(tmp_path, tmp_path, 1)
