"""An application is read from a compose file, a description, or a folder, strictly."""

from pathlib import Path

import pytest

from jobs.deploy.application import ApplicationError, read_application
from jobs.deploy.backends.backend import Placement
from jobs.deploy.compose.findings import Allowance

TEXT = "services:\r\n  web:\n    image: a:1  # kept\n"


def folder(path: Path, **files: str) -> Path:
    """A folder with files; an underscore in a name is a dot."""
    path.mkdir()
    for name, content in files.items():
        (path / name.replace("_", ".")).write_bytes(content.encode())
    return path


@pytest.mark.parametrize("name", ["compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml"])
def test_a_folder_with_a_compose_file_is_an_application(tmp_path: Path, name: str) -> None:
    """It is called like the folder, and its text is kept byte for byte."""
    made = folder(tmp_path / "web-app")
    (made / name).write_bytes(TEXT.encode())
    for path in (made, made / name):
        application = read_application(path)
        assert (application.name, application.compose) == ("web-app", TEXT)
        assert (application.allow, application.env_file, application.placement) == (
            frozenset(), None, Placement(),
        )  # fmt: skip


def test_a_description_says_everything(tmp_path: Path) -> None:
    """Each key reaches the application; paths are relative to the description."""
    description = """
    name = "shop-front"
    compose = "app.yaml"
    env_file = "secret/vars"
    variables = ["A", "B"]
    allow = ["tag", "privileged"]
    pre_launch_script = "before.sh"
    public_logs = true
    public_sysinfo = true
    [size]
    instance_type = "tdx.small"
    vcpu = 2
    memory_mb = 2048
    disk_gb = 40
    image = "dstack-0.5"
    node = "7"
    region = "eu"
    """
    made = folder(tmp_path / "shop", deploy_toml=description, app_yaml=TEXT, before_sh="echo\n")
    application = read_application(made)
    assert (application.name, application.compose, application.script) == ("shop-front", TEXT, "echo\n")
    assert application.env_file == made / "secret" / "vars"
    assert application.variables == ("A", "B")
    assert application.allow == {Allowance.TAG, Allowance.PRIVILEGED}
    assert (application.public_logs, application.public_sysinfo) == (True, True)
    assert application.placement == Placement(
        instance_type="tdx.small",
        vcpu=2,
        memory_mb=2048,
        disk_gb=40,
        image="dstack-0.5",
        node="7",
        region="eu",
    )


def test_a_short_description_becomes_a_compose_text(tmp_path: Path) -> None:
    """Image, command, ports, volumes and names of variables are enough; the text is accepted as it is."""
    description = """
    variables = ["TOKEN"]
    allow = ["tag"]
    [service]
    image = "a:1"
    command = ["serve", "$HOME"]
    ports = ["8080:80"]
    volumes = { data = "/data" }
    """
    application = read_application(folder(tmp_path / "short-app", deploy_toml=description))
    wanted, compose = application.checked(("TOKEN",))
    assert (compose.services, compose.images, compose.volumes) == (("app",), ("a:1",), ("data",))
    assert (wanted.names, wanted.workload.name) == (("TOKEN",), "short-app")
    assert "$$HOME" in application.compose


def test_the_order_of_variables_in_a_file_is_not_measured(tmp_path: Path) -> None:
    """Lines may be sorted without an update of everything."""
    text = "services:\n  web:\n    image: a:1\n    environment: [B, A]\n"
    made = folder(tmp_path / "web-app", compose_yaml=text, deploy_toml='allow = ["tag"]\n')
    application = read_application(made)
    first, second = (application.checked(names)[0] for names in (("A", "B"), ("B", "A")))
    assert first.workload == second.workload


@pytest.mark.parametrize(
    ("description", "said"),
    [
        ("", "it names no compose file and has no \\[service\\]"),
        ('compose = "none.yaml"', "none.yaml: No such file"),
        ('compose = "app.yaml"\n[service]\nimage = "a:1"', "keep one of them"),
        ('compos = "app.yaml"', "compos: Extra inputs are not permitted"),
        ("compose = 1", "compose: Input should be a valid string"),
        ('allow = ["everything"]', "allow.0: Input should be 'privileged'"),
        ("allow", "deploy.toml: Expected '=' after a key"),
        ("[size]\nvcpu = 0", "size.vcpu: Input should be greater than or equal to 1"),
        ("[size]\ndisk = 1", "size.disk: Extra inputs"),
        ("[size]\nvcpu = " + "9" * 5000, "deploy.toml: Exceeds the limit"),
        ("name = " + "[" * 100_000, "deploy.toml: nested too deep"),
        ('compose = "a\\u0000b"', "'a.x00b' is not in the folder"),
        ('[service]\nimage = "a:1"\nvolumes = { "/etc" = "/etc" }', "/etc:/etc is no volume"),
        ('[service]\nimage = "a:1"\n[service.environment]\nTOKEN = "hunter2"', "environment: Extra inputs"),
    ],
)
def test_a_description_that_makes_no_sense_is_refused(tmp_path: Path, description: str, said: str) -> None:
    """The message names the file and the key, and shows no value."""
    made = folder(tmp_path / "web-app", deploy_toml=description)
    with pytest.raises(ApplicationError, match=said) as caught:
        read_application(made)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("member", ["compose", "env_file", "pre_launch_script"])
@pytest.mark.parametrize("named", ["{out}/key", "../key", "link", "links/key", "circle"])
def test_a_description_reaches_nothing_outside_its_folder(tmp_path: Path, member: str, named: str) -> None:
    """A folder from elsewhere has no key of this account shown as a script, or sealed for its own image."""
    (tmp_path / "key").write_text("the account's own key")
    description = f'{member} = "{named.format(out=tmp_path)}"\n'
    made = folder(tmp_path / "web-app", deploy_toml=description, compose_yaml=TEXT)
    (made / "link").symlink_to("../key")
    (made / "links").symlink_to(tmp_path)
    (made / "circle").symlink_to("circle")
    with pytest.raises(ApplicationError, match="is not in the folder"):
        read_application(made)


def test_a_link_within_the_folder_is_followed(tmp_path: Path) -> None:
    """It stays where it is, and the folder itself may be a link."""
    made = folder(tmp_path / "web-app", deploy_toml='compose = "link"\n', app_yaml=TEXT)
    (made / "link").symlink_to("app.yaml")
    (tmp_path / "alias").symlink_to(made)
    assert read_application(tmp_path / "alias").compose == TEXT


def test_a_folder_without_either_is_refused(tmp_path: Path) -> None:
    """It says what was looked for."""
    with pytest.raises(ApplicationError, match=r"expected one of deploy.toml, compose.yaml"):
        read_application(folder(tmp_path / "web-app", readme_md="x"))


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"\xff", "not UTF-8 \\(at byte 0\\)"), (b"x" * (1024 * 1024 + 1), "over 1048576 bytes")],
)
def test_a_file_that_is_no_text_is_refused(tmp_path: Path, content: bytes, said: str) -> None:
    """Neither half a character nor a disk image is read."""
    path = tmp_path / "compose.yaml"
    path.write_bytes(content)
    with pytest.raises(ApplicationError, match=said):
        read_application(path)
