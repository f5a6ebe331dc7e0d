"""What we know of PJSIP beyond its public Python API, all in one place.

pjsua2 wraps PJSIP's C library; some things the wrapper leaves out are exported
by the same shared object and are called here through ctypes::

    clock    -> BridgeMaster.tick()   -> pjmedia_port_get_frame
    request  -> RequestGate           -> answered before pjsua sees it
    frame    -> FrameBuffers          -> bytes, without a copy per sample

Only struct layouts that PJSIP 2.15 and 2.17 share are relied upon; what depends
on the C++ library's layout is tried out at start and replaced by the public,
slower way if it does not hold. No other module may know an address.
"""

import ctypes
import itertools
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pjsua2 as pj
import structlog

from agent.audio.frame import FRAME_BYTES, Frame

log = structlog.get_logger()

WHEEL_CALLS = 4
"""PJSUA_MAX_CALLS as the wheel was compiled; our own build carries hundreds."""

_BUFFER_OFFSET = 8
"""Where MediaFrame.buf begins: behind an enum, aligned to a pointer."""

_REQUEST_PRIORITY = 63
"""One before PJSIP_MOD_PRIORITY_APPLICATION (64), where pjsua answers; transactions (16)
and dialogs (32) have taken what is theirs by then."""

_RESPONSE_CODE_TEXT = None
"""A null pointer lets PJSIP choose the reason phrase."""


class _PjStr(ctypes.Structure):
    """pj_str_t."""

    _fields_ = (("ptr", ctypes.c_void_p), ("slen", ctypes.c_ssize_t))


class _Frame(ctypes.Structure):
    """pjmedia_frame."""

    _fields_ = (
        ("type", ctypes.c_int),
        ("buf", ctypes.c_void_p),
        ("size", ctypes.c_size_t),
        ("timestamp", ctypes.c_uint64),
        ("bit_info", ctypes.c_uint32),
    )


class _ListNode(ctypes.Structure):
    """PJ_DECL_LIST_MEMBER, with room for the rest of a pjsip_hdr."""

    _fields_ = (
        ("prev", ctypes.c_void_p),
        ("next", ctypes.c_void_p),
        ("rest", ctypes.c_uint8 * 64),
    )


class _ResponseAddress(ctypes.Structure):
    """pjsip_response_addr: where the answer to a request would go."""

    _fields_ = (
        ("transport", ctypes.c_void_p),
        ("sockaddr", ctypes.c_uint8 * 28),
        ("sockaddr_len", ctypes.c_int),
        ("host_flag", ctypes.c_uint),
        ("host_type", ctypes.c_int),
        ("host", _PjStr),
        ("port", ctypes.c_int),
    )


_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p)


class _Module(ctypes.Structure):
    """pjsip_module."""

    _fields_ = (
        ("prev", ctypes.c_void_p),
        ("next", ctypes.c_void_p),
        ("name", _PjStr),
        ("id", ctypes.c_int),
        ("priority", ctypes.c_int),
        ("load", ctypes.c_void_p),
        ("start", ctypes.c_void_p),
        ("stop", ctypes.c_void_p),
        ("unload", ctypes.c_void_p),
        ("on_rx_request", _Callback),
        ("on_rx_response", ctypes.c_void_p),
        ("on_tx_request", ctypes.c_void_p),
        ("on_tx_response", ctypes.c_void_p),
        ("on_tsx_state", ctypes.c_void_p),
    )


@dataclass(frozen=True, slots=True)
class Refusal:
    """A final SIP status for a request we do not take, with Retry-After if given."""

    status: int
    retry_after_s: int | None = None


def load_library() -> ctypes.PyDLL:
    """Open the shared object that pjsua2 has loaded, to call what it does not wrap.

    PyDLL keeps the GIL: these calls are short, or call back into Python anyway.
    """
    c = ctypes.PyDLL(pj._pjsua2.__file__)
    c.pjsua_set_no_snd_dev.restype = ctypes.c_void_p
    c.pjmedia_port_get_frame.argtypes = [ctypes.c_void_p, ctypes.c_void_p]
    c.pjsua_pool_create.restype = ctypes.c_void_p
    c.pjsua_pool_create.argtypes = [ctypes.c_char_p, ctypes.c_size_t, ctypes.c_size_t]
    c.pj_pool_reset.argtypes = [ctypes.c_void_p]
    c.pjsua_get_pjsip_endpt.restype = ctypes.c_void_p
    c.pjsip_endpt_register_module.argtypes = [ctypes.c_void_p, ctypes.c_void_p]
    c.pjsip_rx_data_get_info.restype = ctypes.c_char_p
    c.pjsip_rx_data_get_info.argtypes = [ctypes.c_void_p]
    c.pjsip_get_response_addr.argtypes = [ctypes.c_void_p] * 3
    c.pjsip_endpt_respond_stateless.argtypes = [
        ctypes.c_void_p,
        ctypes.c_void_p,
        ctypes.c_int,
        ctypes.c_void_p,
        ctypes.c_void_p,
        ctypes.c_void_p,
    ]
    c.pjsip_generic_string_hdr_create.restype = ctypes.c_void_p
    c.pjsip_generic_string_hdr_create.argtypes = [ctypes.c_void_p] * 3
    return c


class BridgeMaster:
    """The conference bridge's own port: asking it for a frame makes every port run once."""

    def __init__(self, c: ctypes.PyDLL) -> None:
        self._port = c.pjsua_set_no_snd_dev()
        if not self._port:
            raise RuntimeError("PJSIP has no conference bridge to drive")
        self._get_frame = c.pjmedia_port_get_frame
        self._samples = ctypes.create_string_buffer(FRAME_BYTES)
        self._frame = _Frame(buf=ctypes.addressof(self._samples))
        self._frame_address = ctypes.addressof(self._frame)
        self._ticks = itertools.count()

    def tick(self) -> None:
        """Let 20 ms pass in the bridge: all ports hear and speak one frame."""
        self._frame.type = 0
        self._frame.size = FRAME_BYTES
        self._frame.timestamp = next(self._ticks) * (FRAME_BYTES // 2)
        self._get_frame(self._port, self._frame_address)


class FrameBuffers:
    """Moves samples between PJSIP's `std::vector` frames and bytes.

    Reading 320 bytes through the wrapper takes 33 us, by address 0.5 us. The
    layout (begin, end, capacity) is libstdc++'s, so it is tried out first.
    """

    def __init__(self) -> None:
        self.by_address = self._layout_holds()
        if not self.by_address:
            log.warning("! PJSIP's frames are not laid out as expected: audio costs more CPU")

    @staticmethod
    def _layout_holds() -> bool:
        frame = pj.MediaFrame()
        probe = bytes(range(256)) + bytes(FRAME_BYTES - 256)
        frame.buf = pj.ByteVector(probe)
        try:
            address = int(frame.this) + _BUFFER_OFFSET
            begin, end, capacity = (ctypes.c_uint64 * 3).from_address(address)
        except (TypeError, ValueError, AttributeError):
            return False
        if begin == 0 or end - begin != FRAME_BYTES or capacity < end:
            return False
        kept = pj.ByteVector(probe)
        return (
            ctypes.string_at(begin, FRAME_BYTES) == probe
            and ctypes.c_uint64.from_address(int(kept.this)).value != 0
        )

    def read(self, frame: Any) -> Frame | None:
        """Copy the samples out of a MediaFrame; None if it does not hold exactly 20 ms."""
        if frame.size != FRAME_BYTES:
            return None
        if not self.by_address:
            samples = bytes(frame.buf)
            return samples if len(samples) == FRAME_BYTES else None
        base = int(frame.this) + _BUFFER_OFFSET
        begin = ctypes.c_uint64.from_address(base).value
        if not begin or ctypes.c_uint64.from_address(base + 8).value - begin < FRAME_BYTES:
            return None
        return ctypes.string_at(begin, FRAME_BYTES)

    def writer(self) -> Callable[[Any, Frame], None]:
        """Make a function that puts 20 ms into a MediaFrame; one for each port.

        The function raises ValueError for anything but 320 bytes: memmove would
        read past their end.
        """
        if not self.by_address:

            def write_slowly(frame: Any, samples: Frame) -> None:
                _check_length(samples)
                frame.buf = pj.ByteVector(samples)

            return write_slowly
        kept = pj.ByteVector(bytes(FRAME_BYTES))
        address = ctypes.c_uint64.from_address(int(kept.this)).value

        def write(frame: Any, samples: Frame) -> None:
            _check_length(samples)
            ctypes.memmove(address, samples, FRAME_BYTES)
            frame.buf = kept

        return write


def _check_length(samples: Frame) -> None:
    if len(samples) != FRAME_BYTES:
        raise ValueError(f"a frame has {FRAME_BYTES} bytes, not {len(samples)}")


class RequestGate:
    """Looks at each request outside a dialog before pjsua does, and may refuse it.

    pjsua answers OPTIONS with 200 whatever we think, and opens sockets for every
    INVITE; neither can be changed through pjsua2. A refusal here costs nothing.
    """

    def __init__(self, c: ctypes.PyDLL, refuse: Callable[[str, str], Refusal | None]) -> None:
        """Register with PJSIP.

        Args:
            c: The library.
            refuse: Told method and source address; returns how to refuse, or None.
                Runs inside PJSIP on the event loop's thread: it only decides.
        """
        self._c = c
        self._refuse = refuse
        self._endpoint = c.pjsua_get_pjsip_endpt()
        self._headers_pool = c.pjsua_pool_create(b"gate-headers", 1024, 1024)
        self._address_pool = c.pjsua_pool_create(b"gate-address", 512, 512)
        self._headers: dict[int, _ListNode] = {}
        self._name = ctypes.create_string_buffer(b"mod-trunkline-gate")
        self._callback = _Callback(self._on_request)
        self._module = _Module(
            name=_PjStr(ctypes.addressof(self._name), len(self._name.value)),
            id=-1,
            priority=_REQUEST_PRIORITY,
            on_rx_request=self._callback,
        )
        status = c.pjsip_endpt_register_module(self._endpoint, ctypes.addressof(self._module))
        if status != 0:
            raise RuntimeError(f"PJSIP refused our request module (status {status})")

    def _on_request(self, rdata: int) -> int:
        try:
            method = self._method(rdata)
            if method == "ACK":
                return 0
            refusal = self._refuse(method, self._source(rdata))
            if refusal is None:
                return 0
            self._c.pjsip_endpt_respond_stateless(
                self._endpoint,
                rdata,
                refusal.status,
                _RESPONSE_CODE_TEXT,
                self._retry_after(refusal.retry_after_s),
                None,
            )
        except Exception:
            log.exception("! a request could not be judged; PJSIP answers it")
            return 0
        return 1

    def _method(self, rdata: int) -> str:
        """PJSIP describes a message as `Request msg INVITE/cseq=1 (rdata0x...)`."""
        described: bytes = self._c.pjsip_rx_data_get_info(rdata)
        info = described.decode("utf-8", "replace")
        return info.removeprefix("Request msg ").partition("/")[0].upper()

    def _source(self, rdata: int) -> str:
        """The address an answer would go to: the packet's source, unless Via has maddr.

        Source: RFC 3261, 18.2.2 and RFC 3581, 4.
        """
        answer_to = _ResponseAddress()
        self._c.pj_pool_reset(self._address_pool)
        status = self._c.pjsip_get_response_addr(
            self._address_pool, rdata, ctypes.addressof(answer_to)
        )
        if status != 0:
            return ""
        if answer_to.sockaddr_len:
            raw = bytes(answer_to.sockaddr)
            family = int.from_bytes(raw[:2], "little")
            if family == socket.AF_INET:
                return socket.inet_ntop(socket.AF_INET, raw[4:8])
            if family == socket.AF_INET6:
                return socket.inet_ntop(socket.AF_INET6, raw[8:24])
            return ""
        host = ctypes.string_at(answer_to.host.ptr, answer_to.host.slen)
        return host.decode("ascii", "replace")

    def _retry_after(self, seconds: int | None) -> int | None:
        """The address of a header list holding Retry-After; made once for each value."""
        if seconds is None:
            return None
        if seconds not in self._headers:
            name = ctypes.create_string_buffer(b"Retry-After")
            value = ctypes.create_string_buffer(str(seconds).encode())
            header = self._c.pjsip_generic_string_hdr_create(
                self._headers_pool,
                ctypes.byref(_PjStr(ctypes.addressof(name), len(name.value))),
                ctypes.byref(_PjStr(ctypes.addressof(value), len(value.value))),
            )
            head = _ListNode()
            node = _ListNode.from_address(header)
            head.prev = head.next = header
            node.prev = node.next = ctypes.addressof(head)
            self._headers[seconds] = head
        return ctypes.addressof(self._headers[seconds])
