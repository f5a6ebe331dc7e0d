"""Trunkline: a self-hosted voice agent that answers the telephone.

Copyright (C) 2026 The Trunkline authors. GPL-2.0-or-later, see LICENSE.

A voice comes in at one door and goes out at another; facts about the
conversation leave by the back stairs::

    voice   PJSIP -> sip -> agent.call.bridge -> agent.realtime -> aiortc
    facts   data channel -> agent.realtime.protocol -> agent.call.handler
              -> agent.store.journal -> SQL -> agent.admin
"""

__version__ = "0.1.0"
