"""The telephone side: PJSIP as a SIP user agent, polled on our event loop."""
