"""The native stack's parts that can be tried without the stack: certificates, ports, and a supervisor of trifles."""

import os
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import psutil
import pytest
from cryptography import x509

from scripts.stack import certificates, lifecycle, ports, supervision
from scripts.stack.folder import RunFolder, StackError, program, run_folder
from scripts.stack.processes import Process, services
from scripts.stack.settings import choose
from tests.waiting import wait_until


@pytest.fixture
def folder() -> Iterator[RunFolder]:
    made = run_folder(Path(tempfile.mkdtemp(prefix="drawbridge-test-")))
    yield made
    lifecycle.clean(made)


def trifle(name: str, code: str, **environment: str) -> Process:
    return Process(name, [sys.executable, "-c", code], lambda: True, environment)


SLEEP = "import time; time.sleep(600)"


def test_every_peer_gets_a_certificate_that_names_it(tmp_path: Path) -> None:
    certificates.issue(tmp_path / "certs")
    for peer in certificates.PEERS:
        certificate = x509.load_pem_x509_certificate((tmp_path / "certs" / f"{peer}.pem").read_bytes())
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert names.get_values_for_type(x509.UniformResourceIdentifier) == [f"spiffe://drawbridge/{peer}"]
        assert names.get_values_for_type(x509.DNSName) == [peer, "localhost"]


def test_the_public_certificate_does_not_come_from_the_mesh_ca(tmp_path: Path) -> None:
    certificates.issue(tmp_path)
    trust = ssl.create_default_context(cafile=str(tmp_path / "ca.pem"))
    public, mesh = (x509.load_pem_x509_certificate((tmp_path / name).read_bytes()) for name in ("public.pem", "ca.pem"))
    assert len(trust.get_ca_certs()) == 1
    assert public.issuer != mesh.subject
    with pytest.raises((ValueError, TypeError)):
        public.verify_directly_issued_by(mesh)


def test_only_the_owner_can_read_a_key(tmp_path: Path) -> None:
    certificates.issue(tmp_path / "certs")
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "certs").glob("*.key")} == {0o600}


def test_good_certificates_are_kept_and_old_ones_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    certificates.issue(tmp_path / "certs")
    first = (tmp_path / "certs" / "ca.pem").read_bytes()
    certificates.issue(tmp_path / "certs")
    assert (tmp_path / "certs" / "ca.pem").read_bytes() == first

    monkeypatch.setattr(certificates, "RENEW_BEFORE", certificates.LIFETIME + timedelta(days=1))
    certificates.issue(tmp_path / "certs")
    assert (tmp_path / "certs" / "ca.pem").read_bytes() != first


def test_a_port_that_is_taken_is_told_with_what_to_do(folder: RunFolder) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(
            StackError, match=rf"Port {port} cannot be used: Address already in use.*EDGE_PORT=0 make up"
        ):
            lifecycle.up(folder, edge_port=port, edge_tls_port=0)
    assert not supervision.running(folder)


def test_a_folder_with_other_things_in_it_is_not_taken_for_a_run_folder(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(StackError, match="RUN_DIR"):
        run_folder(tmp_path)


def test_free_ports_are_all_different() -> None:
    assert len(set(ports.free(50))) == 50


def test_a_missing_program_is_told_with_what_to_do() -> None:
    with pytest.raises(StackError, match=r"no-such-program is missing.*scripts/setup"):
        program("no-such-program")


def test_sockets_have_a_short_path_however_long_the_run_folders_is(tmp_path: Path) -> None:
    assert RunFolder(Path("/run")).sockets == Path("/run/sockets")
    long = RunFolder(tmp_path / ("long" * 30))
    assert len(os.fsencode(long.sockets / ".s.PGSQL.5432.lock")) < 104


def test_secrets_stay_between_runs_and_are_nobody_elses(folder: RunFolder) -> None:
    first = choose(folder, 0, 0).secrets
    assert choose(folder, 0, 0).secrets == first
    assert (folder.data / "secrets.json").stat().st_mode & 0o777 == 0o600


def test_a_process_gets_its_environment_as_it_is(folder: RunFolder) -> None:
    value = "50% of it, a=b; c"
    code = "import os, time; print(os.environ['ODD'], flush=True); time.sleep(600)"
    supervision.start(folder, {"all": [trifle("odd", code, ODD=value)]})
    supervision.start_group(folder, "all")
    log = folder.logs / "odd.log"
    wait_until(lambda: log.exists() and value in log.read_text(), "the process did not say it")


def test_a_process_that_was_killed_is_started_again(folder: RunFolder) -> None:
    supervision.start(folder, {"all": [trifle("sleeper", SLEEP)]})
    supervision.start_group(folder, "all")
    first = supervision.pid(folder, "sleeper")
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: supervision.pid(folder, "sleeper") not in {0, first}, "it was not started again")


def test_a_server_that_hides_its_environment_is_found_by_its_command(folder: RunFolder) -> None:
    [python] = {tuple(one.command[:3]) for one in services(choose(folder, 0, 0))}
    with subprocess.Popen([*python, "-c", SLEEP], env={}) as hidden:
        try:
            supervision.stop(folder)
            hidden.wait(10)
            assert not psutil.pid_exists(hidden.pid)
        finally:
            hidden.kill()


def test_nothing_is_left_when_the_supervisor_was_killed(folder: RunFolder) -> None:
    supervision.start(folder, {"all": [trifle("sleeper", SLEEP)]})
    supervision.start_group(folder, "all")
    sleeper = psutil.Process(supervision.pid(folder, "sleeper"))
    supervisor = psutil.Process(int((folder.path / "supervisord.pid").read_text()))
    supervisor.kill()
    wait_until(lambda: not supervision.running(folder), "the supervisor lives")
    assert sleeper.is_running()
    lifecycle.down(folder)
    assert not sleeper.is_running()
