import pytest
from chat_server import serve

from rsvl_data.captioning.engine import close_engines


@pytest.fixture
def server():
    """A double of its own; engines that asked it are closed after the test."""
    with serve() as double:
        yield double
        close_engines()
