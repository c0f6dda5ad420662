//! Blocking rtnetlink (RFC 3549): links, addresses and routes of one network namespace.
//!
//! A [`Netlink`] works in the network namespace that its opening thread was in, wherever it is used afterwards. All
//! calls wait for the kernel's answer, which is made while the request is sent: no call needs a timeout.

mod address;
mod link;
mod route;
mod rule;

use std::io;

use netlink_packet_core::{
    DecodeError, NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage,
    NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::Socket;
use netlink_sys::protocols::NETLINK_ROUTE;
use thiserror::Error;

pub use route::KernelRoute;

/// The kernel fills at most 32 KiB per read of a dump (`netlink_dump` in net/netlink/af_netlink.c).
const RECEIVE_BYTES: usize = 32 * 1024;

/// Messages start at multiples of this (`NLMSG_ALIGNTO`).
const ALIGNMENT: usize = 4;

/// A list that changed while it was read is read again, so often at most.
const DUMP_ATTEMPTS: usize = 16;

/// Why the kernel's network state could not be read or changed.
#[derive(Debug, Error)]
pub enum NetlinkError {
    #[error("cannot open a netlink socket")]
    Open(#[source] io::Error),
    #[error("there is no interface '{0}' in this network namespace")]
    NoInterface(String),
    #[error("cannot {step}")]
    Refused { step: String, source: io::Error },
    #[error("cannot {step}: the netlink socket failed")]
    Socket { step: String, source: io::Error },
    #[error("cannot {step}: the kernel's answer was not understood")]
    Answer { step: String, source: DecodeError },
    #[error("cannot {step}: it changed {DUMP_ATTEMPTS} times while it was read")]
    Unsteady { step: String },
}

impl NetlinkError {
    /// The `errno` with which the kernel refused, if it did.
    pub fn refused_with(&self) -> Option<i32> {
        if let Self::Refused { source, .. } = self { source.raw_os_error() } else { None }
    }
}

/// A request socket of rtnetlink.
#[derive(Debug)]
pub struct Netlink {
    socket: Socket,
    sequence: u32,
}

/// What the kernel said to one request.
#[derive(Debug, Default)]
struct Answer {
    messages: Vec<RouteNetlinkMessage>,
    interrupted: bool,
    complete: bool,
}

impl Netlink {
    /// Opens a socket into the calling thread's current network namespace.
    pub fn open() -> Result<Self, NetlinkError> {
        let socket = Socket::new(NETLINK_ROUTE).map_err(NetlinkError::Open)?;
        Ok(Self { socket, sequence: 0 })
    }

    /// Asks for one thing to be done or told, and waits for the acknowledgement. `step` completes "cannot ...".
    fn ask(
        &mut self,
        message: RouteNetlinkMessage,
        flags: u16,
        step: impl Fn() -> String,
    ) -> Result<Vec<RouteNetlinkMessage>, NetlinkError> {
        Ok(self.exchange(message, flags | NLM_F_ACK, &step)?.messages)
    }

    /// Lists, and again if the list changed underneath.
    fn dump(
        &mut self,
        message: &RouteNetlinkMessage,
        step: impl Fn() -> String,
    ) -> Result<Vec<RouteNetlinkMessage>, NetlinkError> {
        for _ in 0..DUMP_ATTEMPTS {
            let answer = self.exchange(message.clone(), NLM_F_DUMP, &step)?;
            if !answer.interrupted {
                return Ok(answer.messages);
            }
        }
        Err(NetlinkError::Unsteady { step: step() })
    }

    fn exchange(
        &mut self,
        message: RouteNetlinkMessage,
        flags: u16,
        step: &dyn Fn() -> String,
    ) -> Result<Answer, NetlinkError> {
        self.send(message, flags).map_err(|source| NetlinkError::Socket { step: step(), source })?;
        let mut answer = Answer::default();
        let mut buffer = Vec::with_capacity(RECEIVE_BYTES);
        while !answer.complete {
            buffer.clear();
            self.socket
                .recv(&mut buffer, 0)
                .map_err(|source| NetlinkError::Socket { step: step(), source })?;
            self.read_answer(&buffer, &mut answer, step)?;
        }
        Ok(answer)
    }

    fn send(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = flags | NLM_F_REQUEST;
        header.sequence_number = self.sequence;
        let mut request = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message));
        request.finalize();
        let mut bytes = vec![0; request.buffer_len()];
        request.serialize(&mut bytes);
        self.socket.send(&bytes, 0)?;
        Ok(())
    }

    fn read_answer(
        &self,
        mut bytes: &[u8],
        answer: &mut Answer,
        step: &dyn Fn() -> String,
    ) -> Result<(), NetlinkError> {
        while !bytes.is_empty() {
            let (header, payload) = NetlinkMessage::<RouteNetlinkMessage>::deserialize(bytes)
                .map_err(|source| NetlinkError::Answer { step: step(), source })?
                .into_parts();
            if header.sequence_number == self.sequence {
                answer.interrupted |= header.flags & NLM_F_DUMP_INTR != 0;
                answer.take(payload).map_err(|source| NetlinkError::Refused { step: step(), source })?;
            }
            let length = (header.length as usize).next_multiple_of(ALIGNMENT);
            bytes = bytes.get(length..).unwrap_or_default();
        }
        Ok(())
    }
}

impl Answer {
    fn take(&mut self, payload: NetlinkPayload<RouteNetlinkMessage>) -> io::Result<()> {
        if let NetlinkPayload::InnerMessage(message) = payload {
            self.messages.push(message);
        } else if let NetlinkPayload::Error(error) = payload {
            self.complete = true;
            if error.code.is_some() {
                return Err(error.to_io());
            }
        } else if let NetlinkPayload::Done(_) = payload {
            self.complete = true;
        }
        Ok(())
    }
}
