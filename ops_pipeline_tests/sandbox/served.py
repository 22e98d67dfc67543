"""A sandbox that answers over real sockets while a test runs."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from ops_pipeline.sandbox.server import LOOPBACK, server_of
from ops_pipeline.sandbox.world import SandboxWorld

TOKEN = "token-of-a-test"
# What a request to the controls has to bring.
CONTROL = {"Authorization": f"Bearer {TOKEN}"}


@contextmanager
def served(world: SandboxWorld) -> Iterator[str]:
    """The address of a server of this world, on a port of the system's choice."""
    with socket.create_server((LOOPBACK, 0)) as listener, TemporaryDirectory() as folder:
        port = listener.getsockname()[1]
        token_file = Path(folder) / "token"
        token_file.write_text(TOKEN)
        server = server_of(world, port, token_file)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        give_up = time.monotonic() + 10
        while not server.started and thread.is_alive() and time.monotonic() < give_up:
            time.sleep(0.005)
        assert server.started, "the sandbox did not start"
        try:
            yield f"http://{LOOPBACK}:{port}"
        finally:
            server.should_exit = True
            thread.join(10)
