import pytest


@pytest.fixture(autouse=True)
def one_thread():
    """Networks here are so small that threads only wait for each other."""
    torch = pytest.importorskip("torch", reason="needs the extra 'train'")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
