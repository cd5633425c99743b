"""Drafts over HTTP, for the machine that the model is on: a scan in, its draft's files out.

One model writes one draft at a time; a bounded number waits. Begin with `app.py`, which has the
addresses; `guard.py` says who may ask and how much may come, `queue.py` writes, `server.py` begins
and ends it all. Needs ``pip install "ctscribe[serve]"``.
"""
