"""The one error of these tools: what went wrong and what to do about it."""


class ClusterError(Exception):
    """Something that the reader has to act upon.

    Args:
        message: What went wrong; names the component, the file or the command.
        hint: What to do next.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(f"{message}\n{hint}" if hint else message)
        self.message = message
        self.hint = hint
