"""Small arrays between the processes of one machine, by sockets.

A step of a residual network exchanges 35 of them. Through gloo each is handed from thread to thread and wakes
its process several times; a socket, written and read by the thread that needs the answer, takes a tenth.
"""

from __future__ import annotations

import os
import socket
import tempfile
from typing import Any

import numpy as np
import torch
from torch import distributed

#: Another process's rank -> the socket to it; empty where gloo has to do.
_others: dict[int, socket.socket] = {}


def connect() -> None:
    """Connect each of the started processes with all others. All have to call it; once is enough."""
    if _others or not hasattr(socket, "AF_UNIX"):
        return
    me, count = distributed.get_rank(), distributed.get_world_size()
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as listener:
        address = f"{folder}/{me}"
        try:
            listener.bind(address)
            listener.listen(count)
        except OSError:  # a longer path than sockets take, or a folder that takes none
            address = ""
        addresses = _from_all(address)
        if all(_from_all(all(map(os.path.exists, addresses)))):
            for rank in range(me):
                _others[rank] = socket.socket(socket.AF_UNIX)
                _others[rank].connect(addresses[rank])
                _others[rank].sendall(me.to_bytes(4, "big"))
            for _ in range(me + 1, count):
                connection, _ = listener.accept()
                _others[int.from_bytes(connection.recv(4), "big")] = connection
        distributed.barrier()  # nobody's address is removed before all are connected


def rows_of_all(mine: np.ndarray) -> np.ndarray:
    """Each process's array, stacked in order of their ranks.

    Raises torch's DistNetworkError: another process has ended. An array of more than 100 kB would fill the
    sockets of processes that all write before they read.
    """
    rows = np.empty((distributed.get_world_size(), *mine.shape), mine.dtype)
    if not _others:
        whole = torch.from_numpy(rows.reshape(-1))
        distributed.all_gather_into_tensor(whole, torch.from_numpy(mine.reshape(-1)))
        return rows
    rows[distributed.get_rank()] = mine
    try:
        for other in _others.values():
            other.sendall(mine.data)
        for rank, other in _others.items():
            if other.recv_into(rows[rank], 0, socket.MSG_WAITALL) != mine.nbytes:
                raise distributed.DistNetworkError("Another process has closed its socket.")
    except OSError as error:
        raise distributed.DistNetworkError("The socket to another process is broken.") from error
    return rows


def _from_all(mine: Any) -> list[Any]:
    found = [None] * distributed.get_world_size()
    distributed.all_gather_object(found, mine)
    return found
