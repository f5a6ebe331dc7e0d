"""`[sip]`, `[[trunks]]` and `[[routes]]`: who may call, how, and whom they reach."""

from ipaddress import ip_network
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from agent.call.settings import FallbackSettings


def _host_and_port(value: str) -> str:
    host, _, port = value.rpartition(":")
    if not host or not port.isdigit() or not 0 <= int(port) <= 65535:
        raise ValueError("must be host:port, for example 127.0.0.1:5060")
    return value


def _port_range(value: str) -> str:
    low, _, high = value.partition("-")
    if not (low.isdigit() and high.isdigit() and 1024 <= int(low) < int(high) <= 65535):
        raise ValueError("must be low-high between 1024 and 65535, for example 16384-18383")
    return value


def _network(value: str) -> str:
    try:
        ip_network(value, strict=False)
    except ValueError:
        raise ValueError("must be an address or a network such as 203.0.113.0/24") from None
    return value


HostPort = Annotated[str, AfterValidator(_host_and_port)]
PortRange = Annotated[str, AfterValidator(_port_range)]
Network = Annotated[str, AfterValidator(_network)]
Codec = Literal["PCMU", "PCMA"]


class SipSettings(BaseModel):
    """`[sip]`: where the user agent listens."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    listen: HostPort = "127.0.0.1:5060"
    tcp: Literal["auto", "on", "off"] = Field(
        "auto", description="auto: on with the own PJSIP build, off with the wheel."
    )
    public_address: str = ""
    rtp_ports: PortRange = "16384-18383"
    max_calls: int = Field(0, ge=0, description="0: what the PJSIP build carries.")
    log_level: int = Field(1, ge=0, le=6, description="PJSIP's own log, 0 (off) to 6.")


_HeaderName = Annotated[str, Field(pattern=r"^[A-Za-z0-9!%*_+`'~.-]+$", max_length=64)]


class TrunkSettings(BaseModel):
    """One `[[trunks]]` table: a peer that may call us."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1, max_length=64)
    allow: tuple[Network, ...] = ()
    transport: Literal["udp", "tcp"] = "udp"
    srtp: Literal["off"] = "off"
    codecs: tuple[Codec, ...] = Field(("PCMU", "PCMA"), min_length=1)
    headers: tuple[_HeaderName, ...] = Field(
        (), max_length=16, description="SIP headers of its INVITEs that agents may be told of."
    )
    base_url: str = Field(
        "",
        pattern=r"^(https?://[^\s?#]+)?$",
        description="Replaces realtime.base_url for its calls: the region.",
    )
    fallback: FallbackSettings | None = Field(
        None, description="Replaces [fallback] for this trunk."
    )


class RouteSettings(BaseModel):
    """One `[[routes]]` table: which number reaches which agent."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    did: str = Field(min_length=1, description='Exact, a prefix such as "+1555*", or "*".')
    agent: str = Field(min_length=1)
