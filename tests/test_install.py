"""`make install` into a folder of the test's own, what it put there, and that `make uninstall` takes all of it back."""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.running import ROOT

BOOT = ROOT / "tuning" / "boot"
UNITS = ("tickpath-tune.service", "tickpath@.service")


def make(target: str, **variables: str) -> subprocess.CompletedProcess[str]:
    named = [f"{name}={value}" for name, value in {"PYTHON": sys.executable, **variables}.items()]
    return subprocess.run(["make", "--no-print-directory", target, *named], cwd=ROOT, capture_output=True, text=True, timeout=600)


def files(folder: Path) -> set[str]:
    """Every file, link and folder below, by its path from there."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


def can_install() -> str:
    """Why this machine cannot install here and now: pip finds the pinned packages neither by network nor by wheels. Empty if it can."""
    wanted = [line for line in (ROOT / "requirements.txt").read_text().splitlines() if line.startswith("setuptools")]
    tried = run(sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed", "--no-deps", *wanted)
    return "" if tried.returncode == 0 else f"pip cannot get {wanted}: {tried.stderr[-200:]}"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A PREFIX that is really used (not a DESTDIR), with a stranger's file in it."""
    if why := can_install():
        pytest.skip(why)
    prefix = tmp_path_factory.mktemp("prefix")
    (prefix / "bin").mkdir()
    (prefix / "bin" / "somebody-elses").write_text("here before\n")
    finished = make("install", PREFIX=str(prefix), SYSCONFDIR=f"{prefix}/etc")
    assert finished.returncode == 0, finished.stdout + finished.stderr
    yield prefix
    shutil.rmtree(prefix)


def run(*command: Any, **more: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=120, cwd="/", **more)


def test_the_installed_command_works_from_anywhere(installed: Path) -> None:
    assert re.match(r"tickpath \d", run(installed / "bin/tickpath", "--version").stdout)
    shipped = run(installed / "bin/tickpath", "config")
    assert shipped.stdout == (ROOT / "engine/runtime/default.toml").read_text()
    assert run(installed / "bin/tickpath", "kill", "--instance", "x", env={"TICKPATH_STATE": str(installed / "s")}).returncode == 3
    assert run(installed / "bin/tickpath", "arm", "--instance", "x", env={"TICKPATH_STATE": str(installed / "s")}).returncode == 0
    shutil.rmtree(installed / "s")
    where = run(installed / "lib/tickpath/venv/bin/python", "-c", "import engine; print(engine.ROOT)").stdout
    assert where.startswith(str(installed)), "it runs from the source and not from where it was installed"


def test_the_installed_tune_works_with_the_installed_profile(installed: Path) -> None:
    profile = installed / "etc/tickpath/tuning.profile"
    finished = run(installed / "bin/tickpath-tune", "audit", "--profile", profile, "--only", "cpuset-v2,swappiness")
    assert "cpuset-v2            the profile leaves it alone" in finished.stdout, finished.stdout + finished.stderr


def test_the_installed_config_starts_an_engine(installed: Path) -> None:
    checking = "import sys; from pathlib import Path; from engine.runtime.config import load; print(load(Path(sys.argv[1])).instance)"
    config = installed / "etc/tickpath/tickpath.toml"
    assert run(installed / "lib/tickpath/venv/bin/python", "-c", checking, config).stdout == "tickpath\n"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not here: apt-get install systemd")
def test_systemd_finds_nothing_wrong_with_the_units(installed: Path, tmp_path: Path) -> None:
    for unit in (installed / "lib/systemd/system").iterdir():
        verified = run("systemd-analyze", "verify", "--man=no", unit)
        assert (verified.returncode, verified.stdout + verified.stderr) == (0, ""), unit.name
    broken = tmp_path / "broken.service"
    broken.write_text("[Service]\nExecStart=/nonexistent/tickpath\nAmbientCapabilities=CAP_NONE_SUCH\n")
    assert run("systemd-analyze", "verify", "--man=no", broken).returncode != 0, "it finds nothing wrong with anything"


@pytest.mark.skipif(shutil.which("systemd-sysusers") is None, reason="systemd-sysusers is not here: apt-get install systemd")
def test_the_system_user_is_one(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    made = run("systemd-sysusers", f"--root={tmp_path}", installed / "lib/sysusers.d/tickpath.conf")
    assert made.returncode == 0, made.stderr
    (user,) = [line.split(":") for line in (tmp_path / "etc/passwd").read_text().splitlines() if line.startswith("tickpath:")]
    assert int(user[2]) < 1000, "RemoveIPC deletes the shared memory of users from 1000 on"
    assert user[6].endswith("nologin")


def test_changed_config_is_kept_and_all_else_goes(installed: Path) -> None:
    """Last in this module: it takes the installation away, with an upgrade before."""
    changed = installed / "etc/tickpath/tickpath.toml"
    changed.write_text("# mine\n" + changed.read_text())
    again = make("install", PREFIX=str(installed), SYSCONFDIR=f"{installed}/etc")
    assert again.returncode == 0, again.stdout + again.stderr
    assert f"kept {changed}, which was changed" in again.stdout
    assert changed.read_text().startswith("# mine\n")
    gone = make("uninstall", PREFIX=str(installed), SYSCONFDIR=f"{installed}/etc")
    assert gone.returncode == 0, gone.stdout + gone.stderr
    assert f"kept {changed}, which was changed" in gone.stdout
    assert files(installed) == {"bin", "bin/somebody-elses", "etc", "etc/tickpath", "etc/tickpath/tickpath.toml"}
    assert make("uninstall", PREFIX=str(installed), SYSCONFDIR=f"{installed}/etc").returncode == 0, "a second time there is nothing to do"


def test_a_staged_install_knows_only_where_it_will_be(tmp_path: Path) -> None:
    if why := can_install():
        pytest.skip(why)
    stage = tmp_path / "stage"
    finished = make("install", DESTDIR=str(stage), PREFIX="/usr")
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert {"usr/bin/tickpath", "usr/bin/tickpath-tune", "etc/tickpath/tickpath.toml", "usr/lib/sysusers.d/tickpath.conf"} <= files(stage)
    assert {f"usr/lib/systemd/system/{unit}" for unit in UNITS} <= files(stage)
    told = [path for path in stage.rglob("*") if path.is_file() and not path.is_symlink() and str(stage).encode() in path.read_bytes()]
    assert not told, f"these name the folder that was only staged in: {told[:5]}"
    assert "ExecStart=/usr/lib/tickpath/venv/bin/tickpath run /etc/tickpath/%i.toml" in read(
        stage / "usr/lib/systemd/system/tickpath@.service"
    )
    assert not Path("/usr/lib/tickpath").exists()
    assert make("uninstall", DESTDIR=str(stage), PREFIX="/usr").returncode == 0
    assert files(stage) == set()


def read(path: Path) -> str:
    return path.read_text()


@pytest.mark.parametrize(
    "variables", [{"PREFIX": "relative"}, {"DESTDIR": "relative"}, {"PREFIX": "/with blank"}, {"PYTHON": "/bin/false"}]
)
def test_what_cannot_be_is_refused_before_anything_is_written(tmp_path: Path, variables: dict[str, str]) -> None:
    finished = make("install", **{"DESTDIR": str(tmp_path), "PREFIX": "/usr", **variables})
    assert finished.returncode != 0
    assert "install.sh: " in finished.stderr
    assert files(tmp_path) == set()


# The units


def options(unit: str) -> dict[str, list[str]]:
    """A unit's keys, with every value each is given."""
    found: dict[str, list[str]] = {}
    for line in (BOOT / unit).read_text().splitlines():
        key, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            found.setdefault(key, []).append(value)
    return found


# systemd answers each of these with a seccomp filter, which every system call then passes, or forbids what we are here for.
HURTS = re.compile(
    r"SystemCall\w+|Restrict\w+|PrivateDevices|ProtectClock|ProtectHostname|ProtectKernelModules|ProtectKernelLogs|LockPersonality|"
    r"MemoryDenyWriteExecute|IPAddress\w+|IPAccounting|PrivateUsers|CPUQuota"
)


def test_the_engine_is_hardened_by_nothing_that_costs_latency() -> None:
    assert not [key for key in options("tickpath@.service") if HURTS.fullmatch(key)]


def test_a_kill_or_a_bad_config_is_not_restarted_into() -> None:
    from tools.cli import EXIT_FAILED, EXIT_MISUSE, EXIT_NO

    engine = options("tickpath@.service")
    prevented = [int(code) for code in engine["RestartPreventExitStatus"][0].split()]
    assert {EXIT_NO, EXIT_MISUSE} == set(prevented)
    assert EXIT_FAILED not in prevented
    assert engine["Restart"] == ["on-failure"]


def test_the_engine_is_told_to_stop_by_its_supervisor_alone() -> None:
    assert options("tickpath@.service")["KillMode"] == ["mixed"], "children that get SIGTERM too leave before orders are cancelled"


def test_the_engine_has_the_rights_it_needs_and_no_more() -> None:
    engine = options("tickpath@.service")
    assert engine["User"] == ["tickpath"]
    assert engine["AmbientCapabilities"] == engine["CapabilityBoundingSet"] == ["CAP_SYS_NICE CAP_IPC_LOCK"]
    assert (engine["LimitMEMLOCK"], engine["LimitRTPRIO"]) == (["infinity"], ["49"])
    assert "tickpath-tune.service" in engine["After"][0]
    assert "network-online.target" in engine["After"][0]
    assert "tickpath/state" in engine["StateDirectory"], "/var/lib/tickpath itself holds tune's journal, which only root may write"


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not here: apt-get install shellcheck")
def test_shellcheck_finds_nothing() -> None:
    checked = run("shellcheck", *BOOT.glob("*.sh"))
    assert checked.returncode == 0, checked.stdout


# The container


def test_the_compose_file_says_what_latency_needs() -> None:
    yaml = pytest.importorskip("yaml", reason="PyYAML is not here to read compose.yaml with")
    text = (ROOT / "tuning/container/compose.yaml").read_text()
    engine = yaml.safe_load(text)["services"]["engine"]
    assert engine["network_mode"] == "host"
    assert engine["ulimits"]["memlock"] == {"soft": -1, "hard": -1}
    assert engine["ulimits"]["rtprio"]["hard"] == 49
    assert engine["cap_add"] == ["SYS_NICE", "IPC_LOCK"]
    assert engine["init"] is True
    assert engine["logging"]["options"]["mode"] == "non-blocking"
    assert engine["cpuset"].startswith("${TICKPATH_CPUS:?")
    assert "shm_size" in engine
    assert (ROOT / "tuning/container" / engine["build"]["context"] / engine["build"]["dockerfile"]).is_file()


INSTRUCTIONS = {"FROM", "RUN", "COPY", "ENV", "VOLUME", "USER", "STOPSIGNAL", "ENTRYPOINT", "CMD"}


def test_the_dockerfile_copies_what_is_there_and_does_not_run_as_root() -> None:
    lines = (ROOT / "tuning/container/Dockerfile").read_text().replace("\\\n", " ").splitlines()
    steps = [line.split(maxsplit=1) for line in lines if line and not line.startswith("#")]
    assert {step[0] for step in steps} <= INSTRUCTIONS
    last = [step for step in steps if step[0] in ("USER", "ENTRYPOINT", "FROM")]
    assert [step[0] for step in last[-2:]] == ["USER", "ENTRYPOINT"]
    images = [rest.split()[0] for word, rest in steps if word == "FROM"]
    assert len(set(images)) == 1, "the venv refers to the Python of the image it was made in"
