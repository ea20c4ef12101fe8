"""The first batches of a calibration, kept for what is measured later."""

import numpy as np

from amct_lite.calibration.kept_batches import MAX_KEPT_SAMPLES, KeptBatches, load_batches


def test_whole_batches_are_kept_until_there_are_enough_samples(tmp_path):
    kept = KeptBatches()
    batches = [{"a/b:0": np.full((MAX_KEPT_SAMPLES - 1, 2), n, np.float32), "mask": np.array([n])} for n in range(4)]
    for batch in batches:
        kept.add(batch)
        batch["a/b:0"] += 100  # the user's array may be filled again
    kept.save(tmp_path / "samples.npz")
    found = load_batches(tmp_path / "samples.npz")
    assert [sorted(feed) for feed in found] == [["a/b:0", "mask"]] * 2
    for number, feed in enumerate(found):
        assert feed["a/b:0"].shape == (MAX_KEPT_SAMPLES - 1, 2)
        assert feed["a/b:0"].dtype == np.float32
        assert (feed["a/b:0"] == number).all()
        assert feed["mask"] == number


def test_the_same_batches_give_the_same_bytes(tmp_path):
    for name in ("one", "two"):
        kept = KeptBatches()
        kept.add({"x": np.arange(6.0).reshape(3, 2)})
        kept.save(tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
