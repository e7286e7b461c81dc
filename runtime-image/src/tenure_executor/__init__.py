"""What runs the code of agents in the workspace container, whose image is the user's.

For Python 3.9 or newer, with the standard library only. It must be started as `python3 -I`: the home directory belongs
to the code, and a Python that is not isolated would run what lies there before the walls stand.
"""
