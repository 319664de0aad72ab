"""The one exception that means: the user can fix this."""


class UserError(ValueError):
  """A request that cannot be carried out as it stands.

  The message is one line and names the flag or the file (with the position),
  what was found, what is allowed and what to do. Drivers print it and exit
  with code 2; everything else is a bug and keeps its traceback.
  """
