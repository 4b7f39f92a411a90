"""What goes wrong while a container application is deployed, each failure with what to do about it.

Invariant: a message says what, and `advice` says what to do; neither holds the value of a variable or a key.
"""

from blueprint.errors import BlueprintError

__all__ = ["DeployError"]


class DeployError(BlueprintError):
    """A deployment cannot go on.

    Args:
        message: what happened.
        advice: what to do, as one clause; it is shown after the message.
    """

    def __init__(self, message: str, *, advice: str = "") -> None:
        super().__init__(f"{message}; {advice}" if advice else message)
        self.advice = advice
