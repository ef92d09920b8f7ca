"""The state directory: one holder, private files, no leftovers of Ray."""

import json
import os

import pytest

from cotenant_operator import local
from cotenant_operator.local import up
from cotenant_operator.state_dir import TOKENS, StateDir, StateInUseError, write_private


@pytest.fixture
def state(tmp_path):
    made = StateDir(tmp_path / "state")
    made.acquire()
    yield made
    made.release()
    made.remove_ray_temp()


def test_a_second_holder_is_told_who_has_it(state):
    with pytest.raises(StateInUseError, match=f"process {os.getpid()}"):
        StateDir(state.path).acquire()


def test_it_is_free_again_after_release(tmp_path):
    for _ in range(2):
        state = StateDir(tmp_path)
        state.acquire()
        state.release()
        state.remove_ray_temp()


def test_everything_is_private(state):
    write_private(state.path / "file", b"x")
    for path in [state.path, *state.path.rglob("*")]:
        assert path.stat().st_mode & 0o077 == 0, path


def test_tokens_are_random_and_kept(state):
    first = [state.secret(name).read_text() for name in TOKENS]
    assert len(set(first)) == len(TOKENS)
    assert all(len(token) == 64 for token in first)
    state.release()
    state.acquire()
    assert [state.secret(name).read_text() for name in TOKENS] == first


def test_the_control_file_names_paths_and_no_secret(state):
    state.announce(conductor_url="http://127.0.0.1:1", gateway_url="http://127.0.0.1:2")
    content = json.loads(state.control.read_text())
    assert content["pid"] == os.getpid()
    assert state.secret("control-token").read_text() not in state.control.read_text()


def test_ray_sessions_of_earlier_runs_are_removed(state):
    session = state.ray_temp / "session_2020" / "logs"
    session.mkdir(parents=True)
    (state.ray_temp / "ray_current_cluster").write_text("x")
    state.clear()
    assert list(state.ray_temp.iterdir()) == []


def test_rays_sockets_fit_however_deep_the_state_directory_is(tmp_path):
    deep = StateDir(tmp_path / ("d" * 100) / ("e" * 100))
    socket = deep.ray_temp / "session_2026-11-23_20-48-38_438518_1234567" / "sockets" / "plasma_store"
    assert len(str(socket)) < 107


def test_the_desired_state_of_an_earlier_run_is_forgotten(state):
    """Its generation may lie in this clock's future, and nothing of that run is alive."""
    kept = state.path / "conductor"
    kept.mkdir()
    (kept / "desired.json").write_text("{}")
    state.clear()
    assert list(kept.iterdir()) == []


@pytest.mark.parametrize("bad", ["file/below", "x" * 300])
def test_a_state_directory_that_cannot_be_is_one_line(tmp_path, bad, capsys):
    (tmp_path / "file").write_text("")
    assert up([], host="127.0.0.1", port=0, state=tmp_path / bad) == 2
    said = capsys.readouterr().err
    assert "cannot be used" in said
    assert "--state" in said
    assert "Traceback" not in said


def test_a_package_that_is_missing_is_named_with_the_command_that_installs_it(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(local, "NEEDED", ("json", "no_such_package"))
    assert up([], host="127.0.0.1", port=0, state=tmp_path) == 2
    assert "no_such_package is not installed. Run: pip install 'cotenant[local]'" in capsys.readouterr().err
