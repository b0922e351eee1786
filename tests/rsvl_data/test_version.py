import subprocess
from importlib.metadata import version

from rsvl_data.version import _commit, code_version


def git(folder, *arguments):
    identity = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false")
    done = subprocess.run(["git", *identity, "-C", str(folder), *arguments], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def test_starts_with_the_package_version():
    assert code_version().split("+")[0] == version("rsvl")


def test_commit_of_a_checkout(tmp_path):
    package = tmp_path / "package"
    package.mkdir()
    (package / "code.py").write_text("1")
    git(tmp_path, "init", "-q")
    assert _commit(package) is None  # no commit yet
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "first")
    git(tmp_path, "tag", "-a", "v9", "-m", "a tag is no hash")
    head = git(tmp_path, "rev-parse", "--short=7", "HEAD")
    assert _commit(package) == head
    (package / "code.py").write_text("2")
    assert _commit(package) == f"{head}.dirty"


def test_a_package_inside_somebody_elses_repository_has_no_commit(tmp_path):
    site_packages = tmp_path / ".venv" / "site-packages" / "package"
    site_packages.mkdir(parents=True)
    (tmp_path / "theirs.txt").write_text("1")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", "theirs.txt")
    git(tmp_path, "commit", "-qm", "theirs")
    assert _commit(site_packages) is None


def test_without_git(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert _commit(tmp_path) is None
