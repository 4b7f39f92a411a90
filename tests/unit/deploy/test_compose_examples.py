"""The compose files that are shipped are accepted, with exactly the risks that they say they take."""

from pathlib import Path

import pytest

from blueprint.settings import ENV_PREFIX, Settings
from jobs.deploy.application import read_application
from jobs.deploy.compose.check import check_compose
from jobs.deploy.compose.document import read_document
from jobs.deploy.compose.findings import Allowance, ComposeError
from jobs.deploy.env_file import read_env_file

EXAMPLES = Path(__file__).resolve().parents[3] / "examples" / "compose"
RISKS = {
    "hello": {Allowance.TAG},
    "node": {Allowance.TAG, Allowance.PRIVILEGED, Allowance.HOST_MOUNT, Allowance.HOST_NAMESPACE},
}


def example(folder: str) -> tuple[str, list[str]]:
    """An example's text, and the names of the variables in the file beside it."""
    text = (EXAMPLES / folder / "compose.yaml").read_text()
    return text, [variable.key for variable in read_env_file(EXAMPLES / folder / "variables.env")]


def test_every_example_is_covered() -> None:
    """A further example needs its line here."""
    assert {path.parent.name for path in EXAMPLES.glob("*/compose.yaml")} == RISKS.keys()


@pytest.mark.parametrize("folder", RISKS)
def test_an_example_takes_the_risks_it_names(folder: str) -> None:
    """With its own variables and allowances it is accepted; its comments name each allowance."""
    text, names = example(folder)
    compose = check_compose(text, names=names, allow=RISKS[folder])
    assert compose.allowed == RISKS[folder]
    comments = "\n".join(line for line in text.splitlines() if line.startswith("#"))
    assert [risk for risk in sorted(RISKS[folder]) if risk not in comments] == []


@pytest.mark.parametrize(
    ("folder", "risk"), [(name, risk) for name, risks in RISKS.items() for risk in sorted(risks)]
)
def test_an_example_is_refused_without_one_of_its_allowances(folder: str, risk: Allowance) -> None:
    """Each risk is asked for by name, and the findings are about nothing else."""
    text, names = example(folder)
    with pytest.raises(ComposeError) as caught:
        check_compose(text, names=names, allow=RISKS[folder] - {risk})
    assert {finding.allowance for finding in caught.value.findings} == {risk}


@pytest.mark.parametrize("folder", RISKS)
def test_an_example_is_deployed_as_it_is_described(folder: str) -> None:
    """Its deploy.toml allows exactly the risks that it takes, and names the file of its variables."""
    application = read_application(EXAMPLES / folder)
    text, names = example(folder)
    wanted, compose = application.checked(tuple(names))
    assert (compose.text, compose.allowed, application.allow) == (text, RISKS[folder], RISKS[folder])
    assert application.env_file == EXAMPLES / folder / "variables.env"
    assert wanted.names == tuple(sorted(names))


def test_hello_has_what_a_deployment_is_shown_with() -> None:
    """Two services, of which one waits for the other's health, a volume that lasts, and sealed variables."""
    text, names = example("hello")
    compose = check_compose(text, names=names, allow=RISKS["hello"])
    assert (compose.services, compose.volumes, names) == (("web", "reader"), ("data",), ["GREETING", "TOKEN"])


def test_the_node_is_given_settings_that_it_has() -> None:
    """Each variable of the node's service is one of its settings: a mistyped one would be without effect."""
    text, _ = example("node")
    services = read_document(text).entries or {}
    node = (services["services"].entries or {})["node"]
    environment = (node.entries or {})["environment"].entries or {}
    assert len(environment) > 1
    known = {f"{ENV_PREFIX}{name}".upper() for name in Settings.model_fields}
    assert environment.keys() - known == set()
