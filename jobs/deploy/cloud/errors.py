"""Everything that the cloud answers instead of what was asked, each with what to do.

::

    CloudError
      CloudUnreachableError    nothing was sent                                     (may work later)
      CloudInterruptedError    sent, but the answer did not arrive whole: it may have been done
      CloudProtocolError       an answer that this client does not understand
      CloudServerError         500 to 599                                           (may work later)
      UnauthorizedError        401
      ForbiddenError           403, and what belongs to another workspace
      NotFoundError            404
      InvalidRequestError      400 and 422, with the places
      UnknownChoiceError       no such node, size, image or KMS
      NameTakenError           two machines of one name
      AppConflictError         409: the app id is in use with another compose hash
      BusyError                409 without a code: the machine is in motion         (may work later)
      HashUnregisteredError    465: the compose hash must be registered on chain
      HashExpiredError         466: what was prepared has been forgotten
      RateLimitedError         429                                                  (may work later)
      NoRoomError              no node can take the machine                         (may work later)
      QuotaError               the workspace's own limit, or its money

Invariant: an error holds the request's method, path and id, never its headers or its body.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from jobs.deploy.errors import DeployError, PreparationLostError

__all__ = [
    "AppConflictError",
    "BusyError",
    "CloudError",
    "CloudInterruptedError",
    "CloudProtocolError",
    "CloudServerError",
    "CloudUnreachableError",
    "Complaint",
    "ForbiddenError",
    "HashExpiredError",
    "HashUnregisteredError",
    "InvalidRequestError",
    "NameTakenError",
    "NoRoomError",
    "NotFoundError",
    "QuotaError",
    "RateLimitedError",
    "UnauthorizedError",
    "UnknownChoiceError",
    "error_of",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Complaint:
    """What the cloud says of a request that it refuses."""

    request: str
    """Method and path."""
    status: int = 0
    """HTTP's; 0 where there was no answer."""
    code: str = ""
    """``ERR-MM-NNN``, or empty."""
    text: str = ""
    places: Sequence[str] = ()
    """Members of the request, each with what is wrong with it."""
    suggestions: Sequence[str] = ()
    """The cloud's own."""
    request_id: str = ""
    """What the cloud's support asks for."""
    retry_after_s: float | None = None


class CloudError(DeployError):
    """The cloud did not do what was asked."""

    advised: ClassVar[str] = "see the cloud's status page, and give its support the request id"

    def __init__(self, complaint: Complaint) -> None:
        super().__init__(_sentence(complaint), advice="; ".join((self.advised, *complaint.suggestions)))
        self.complaint = complaint

    @property
    def request_id(self) -> str:
        """The id by which the cloud's support finds the request; may be empty."""
        return self.complaint.request_id


class CloudUnreachableError(CloudError):
    """No connection came about, so nothing was sent."""

    retryable = True
    advised = "check the network, the proxy and the base URL, then run the same command again"


class CloudInterruptedError(CloudError):
    """The request was sent and its answer did not arrive whole: it may have been carried out."""

    advised = "run the same command again: it looks first at what exists"


class CloudProtocolError(CloudError):
    """The answer is not one of this API, or of a version that this client does not know."""

    advised = "check the base URL and the API version; a proxy may have answered in the cloud's place"


class CloudServerError(CloudError):
    """The cloud failed by itself."""

    retryable = True
    advised = "run the same command again in a minute; give the cloud's support the request id if it stays"


class UnauthorizedError(CloudError):
    """The API key is missing, wrong or revoked."""

    advised = "make a new API key in the cloud's dashboard, and give it: BLUEPRINT_CLOUD_API_KEY"


class ForbiddenError(CloudError):
    """The API key is good, but not for this."""

    advised = "use a key of the workspace that owns the machine, with the right to change it"


class NotFoundError(CloudError):
    """There is no such machine or path."""

    advised = "list the machines of the workspace: it may have been deleted, or belong to another one"


class InvalidRequestError(CloudError):
    """The request breaks a rule of the cloud."""

    advised = "change what is named"


class UnknownChoiceError(CloudError):
    """A node, an instance type, an image or a KMS that is not there, or that do not go together."""

    advised = "leave the choice to the cloud, or take one that it offers"


class NameTakenError(CloudError):
    """The name belongs to another machine, or to several."""

    advised = "take another name, or address the machine by its id"


class AppConflictError(CloudError):
    """The app id is in use with another compose hash."""

    advised = "update the machine that has this app id, or prepare a new one"


class BusyError(CloudError):
    """The machine is doing something else."""

    retryable = True
    advised = "wait until its present operation ends, then run the same command again"


class HashUnregisteredError(CloudError):
    """The compose hash is not registered in the application's contract on chain."""

    advised = "register the compose hash in the application's contract, then run the same command again"


class HashExpiredError(CloudError, PreparationLostError):
    """What was prepared has expired."""

    advised = "prepare it again"


class RateLimitedError(CloudError):
    """Too many requests."""

    retryable = True
    advised = "wait, then run the same command again"


class NoRoomError(CloudError):
    """No node has room for a machine of this size."""

    retryable = True
    advised = "ask for a smaller instance type, leave out node and region, or try again later"


class QuotaError(CloudError):
    """The workspace has reached its limit, or its money is spent."""

    advised = "delete machines that are not needed, or raise the workspace's limit or balance"


# As the cloud's public SDK lists them: 01 preflight, 02 inventory, 03 machines, 04 workspace, 05 keys.
_BY_CODE: dict[str, type[CloudError]] = {
    "ERR-01-001": UnknownChoiceError,
    "ERR-01-002": InvalidRequestError,
    "ERR-01-003": InvalidRequestError,
    "ERR-01-004": NameTakenError,
    "ERR-01-005": HashUnregisteredError,
    "ERR-01-006": HashExpiredError,
    "ERR-01-007": HashUnregisteredError,
    "ERR-01-008": HashUnregisteredError,
    "ERR-02-001": UnknownChoiceError,
    "ERR-02-002": NoRoomError,
    "ERR-02-003": NoRoomError,
    "ERR-02-004": NoRoomError,
    "ERR-02-005": NoRoomError,
    "ERR-02-006": NoRoomError,
    "ERR-02-007": NoRoomError,
    "ERR-02-008": InvalidRequestError,
    "ERR-02-009": UnknownChoiceError,
    "ERR-02-010": UnknownChoiceError,
    "ERR-02-011": UnknownChoiceError,
    "ERR-02-012": NoRoomError,
    "ERR-02-013": UnknownChoiceError,
    "ERR-02-014": NoRoomError,
    "ERR-02-015": QuotaError,
    "ERR-03-001": NotFoundError,
    "ERR-03-002": NameTakenError,
    "ERR-03-003": ForbiddenError,
    "ERR-03-005": ForbiddenError,
    "ERR-03-006": UnknownChoiceError,
    "ERR-03-007": AppConflictError,
    "ERR-04-001": QuotaError,
    "ERR-04-002": QuotaError,
    "ERR-04-003": QuotaError,
    "ERR-05-001": QuotaError,
    "ERR-05-002": RateLimitedError,
}
_BY_STATUS: dict[int, type[CloudError]] = {
    400: InvalidRequestError,
    401: UnauthorizedError,
    402: QuotaError,
    403: ForbiddenError,
    404: NotFoundError,
    409: BusyError,
    422: InvalidRequestError,
    429: RateLimitedError,
    465: HashUnregisteredError,
    466: HashExpiredError,
}
_SERVER_ERROR = 500
_SHOWN_CHARACTERS = 500


def error_of(complaint: Complaint) -> CloudError:
    """Return the exception for a refusal: by its code if that is known, else by its status."""
    if complaint.status >= _SERVER_ERROR and complaint.code not in _BY_CODE:
        return CloudServerError(complaint)
    kind = _BY_CODE.get(complaint.code)
    if kind is None:
        # A conflict with a code that we do not know is not the transient one.
        known = complaint.status in _BY_STATUS and not (complaint.code and complaint.status == 409)  # noqa: PLR2004
        kind = _BY_STATUS[complaint.status] if known else CloudError
    return kind(complaint)


def _sentence(complaint: Complaint) -> str:
    said = " ".join(complaint.text.split())[:_SHOWN_CHARACTERS]
    status = f" answered {complaint.status}" if complaint.status else " failed"
    code = f" ({complaint.code})" if complaint.code else ""
    places = f" [{'; '.join(complaint.places)}]" if complaint.places else ""
    request_id = f", request id {complaint.request_id}" if complaint.request_id else ""
    return f"{complaint.request}{status}{code}: {said or 'no reason given'}{places}{request_id}"
