"""Optimizers in several threads, and in a child of a process that has used all of its threads."""

import multiprocessing
import os
import subprocess
import sys
import threading

import pytest
import torch

import thalweg
from tests.fixtures import BACKENDS, on_backends, same, tensors, walk


def in_threads(functions):
    """Run all at once; the first error is raised here."""
    errors, barrier = [], threading.Barrier(len(functions))

    def call(function):
        try:
            barrier.wait()
            function()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=call, args=(f,)) for f in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


@on_backends
@pytest.mark.parametrize("flags", [{}, {"clip_global_norm": 0.5}, {"state_dtype": "int8"}], ids=str)
def test_optimizers_in_threads_of_their_own(backend, flags):
    expected = tensors((50, 40), (3,))
    walk(thalweg.AdamW(expected, lr=0.01, backend=backend, **flags), expected, range(4))
    walked = [tensors((50, 40), (3,)) for _ in range(4)]

    def one(params):
        return lambda: walk(thalweg.AdamW(params, lr=0.01, backend=backend, **flags), params, range(4))

    in_threads([one(params) for params in walked])
    assert all(same(params, expected) for params in walked)


def test_threads_that_compile_the_same_and_different_rules_at_once(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))  # so that nothing is compiled yet
    rules = [thalweg.AdamW, thalweg.Adagrad, thalweg.Lion]
    walked = {(rule, i): tensors((20,)) for rule in rules for i in range(2)}
    # flags that no other test puts together: nothing is traced yet
    flags = {"clip_value": 1.0, "clip_norm": 2.0, "cautious": True, "centralize": True}

    def one(rule, params):
        return lambda: walk(rule(params, lr=0.01, backend="cpu", **flags), params, range(2))

    in_threads([one(rule, params) for (rule, _), params in walked.items()])
    for rule in rules:
        expected = tensors((20,))
        walk(rule(expected, lr=0.01, backend="eager", **flags), expected, range(2))
        assert same(walked[rule, 0], walked[rule, 1])
        assert same(walked[rule, 0], expected, within=1e-5)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_forked_child_steps_after_a_parallel_step_of_its_parent(backend):
    torch.set_num_threads(2)
    params = tensors((400, 300))  # enough for two threads
    optimizer = thalweg.AdamW(params, lr=0.01, backend=backend)
    walk(optimizer, params, range(2))
    expected = tensors((400, 300))
    walk(thalweg.AdamW(expected, lr=0.01, backend=backend), expected, range(2))
    assert same(params, expected)
    params[0].grad = torch.ones(400, 300)
    reader, writer = multiprocessing.get_context("fork").Pipe(duplex=False)

    def child():
        if backend != "cpu":
            torch.set_num_threads(1)  # what torch itself asks of a child
        optimizer.step()
        writer.send_bytes(params[0].detach().numpy().tobytes())

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    assert reader.poll(60), "the child hangs"
    sent = reader.recv_bytes()
    process.join(60)
    assert process.exitcode == 0
    optimizer.step()
    assert sent == params[0].detach().numpy().tobytes()


LATE = """
import threading
import torch
import thalweg

def train():
    threading.main_thread().join()
    params = [torch.ones(4, 5, requires_grad=True), torch.ones(5, requires_grad=True)]
    optimizer = thalweg.Adafactor(params)
    for p in params:
        p.grad = torch.ones_like(p)
    optimizer.step()
    print("stepped")

threading.Thread(target=train).start()
"""


@pytest.mark.slow(reason="a process that compiles")
def test_a_thread_makes_its_first_step_after_the_main_thread_has_ended():
    done = subprocess.run([sys.executable, "-c", LATE], capture_output=True, text=True)
    assert "stepped" in done.stdout, done.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_forked_child_compiles_and_steps_on_its_own():
    torch.set_num_threads(2)
    params = tensors((400, 300))
    walk(thalweg.AdamW(params, backend="cpu"), params, range(1))
    context = multiprocessing.get_context("fork")
    reader, writer = context.Pipe(duplex=False)

    def child():
        mine = tensors((100, 100))
        walk(thalweg.Adamax(mine, lr=0.01, backend="cpu", cautious=True, clip_value=0.7), mine, range(2))
        writer.send_bytes(mine[0].detach().numpy().tobytes())

    process = context.Process(target=child)
    process.start()
    assert reader.poll(60), "the child hangs"
    sent = reader.recv_bytes()
    process.join(60)
    mine = tensors((100, 100))
    walk(thalweg.Adamax(mine, lr=0.01, backend="cpu", cautious=True, clip_value=0.7), mine, range(2))
    assert sent == mine[0].detach().numpy().tobytes()
