"""What goes wrong while a container application is deployed, each failure with what to do about it.

::

    DeployError
      OrderRefusedError       what is asked for is not accepted
      NoCapacityError         there is no room for it now
      PreparationLostError    nothing is known of it any more: prepare again
      ApplicationFailedError  a container ended or is unhealthy
      NotReadyError           it did not become healthy in its time
      (each place to deploy to has its own below the root)

Invariant: a message says what, and `advice` says what to do; neither holds the value of a variable or a key.
The five named here are told to whoever asked for the deployment; the message of any other is the operator's.
"""

from blueprint.errors import BlueprintError

__all__ = [
    "ApplicationFailedError",
    "DeployError",
    "NoCapacityError",
    "NotReadyError",
    "OrderRefusedError",
    "PreparationLostError",
]


class DeployError(BlueprintError):
    """A deployment cannot go on.

    Args:
        message: what happened.
        advice: what to do, as one clause; it is shown after the message.
    """

    def __init__(self, message: str, *, advice: str = "") -> None:
        super().__init__(f"{message}; {advice}" if advice else message)
        self.advice = advice


class OrderRefusedError(DeployError):
    """The compose text, a name, the size or the ciphertext is not accepted; repeated, it is refused again."""


class NoCapacityError(DeployError):
    """No machine has room, or a quota is reached."""


class PreparationLostError(DeployError):
    """What is to be committed is not known, or no longer."""


class ApplicationFailedError(DeployError):
    """The machine does not boot, or a container of it ended or is unhealthy."""


class NotReadyError(DeployError):
    """The application was not up in its time; it may still come up, but that time is not given twice."""
