"""``tussis soak``: the real pipeline under random faults, with an account at the end."""
