//! The frames of one link: a queue and a stream a class and direction.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bus::Class;
use bus::frame::{Frame, FrameDecoder, FrameError, MAX_FRAME_LEN};
use bytes::{Bytes, BytesMut};
use quinn_proto::{Chunk, Connection, Dir, ReadError, StreamEvent, StreamId, WriteError};
use thiserror::Error;

use super::Lane;
use super::config::{JOIN_BYTES, SEND_QUEUE_BYTES, send_window};

/// Bytes taken from a stream at a time: the decoder holds a frame and at most this.
const READ_LEN: usize = 64 << 10;

/// Payloads shorter than this are copied out of their receive buffer: a copy of a few KiB costs less than what it pins.
const COPY_BELOW: usize = 16 << 10;

/// What a peer did that ends its link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(super) enum PeerFault {
    #[error("opened a stream of unknown class {0}")]
    UnknownClass(u8),
    #[error("opened a second {0:?} stream")]
    SecondStream(Class),
    #[error("sent a malformed frame: {0}")]
    Frame(#[from] FrameError),
    #[error("abandoned a stream")]
    AbandonedStream,
    #[error("refused a stream")]
    RefusedStream,
    #[error("sent streams on the packets lane")]
    StreamOnPackets,
    #[error("sent packets on a stream lane")]
    PacketOnStreams,
    #[error("used another class than control to join")]
    JoinClass,
    #[error("said too much to join")]
    JoinBytes,
}

/// What became of a frame given to a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Queued {
    Yes,
    /// Its class's queue was full, and the class may lose.
    Dropped,
    /// Its class's queue was full, and the class may not lose.
    Overflow(Class),
    /// Longer than any peer takes.
    TooLong(usize),
}

/// Both directions of a link's frames.
#[derive(Debug)]
pub(super) struct Streams {
    lane: Lane,
    outgoing: BTreeMap<Class, Outgoing>,
    incoming: BTreeMap<StreamId, Incoming>,
    /// Streams that may have something to read.
    unread: BTreeSet<StreamId>,
    /// Classes that the peer has opened, whether or not their stream still lives.
    opened: BTreeSet<Class>,
    received: usize,
}

#[derive(Debug, Default)]
struct Outgoing {
    stream: Option<StreamId>,
    /// Encoded frames; the first may be partly written.
    queue: VecDeque<Bytes>,
    bytes: usize,
}

#[derive(Debug, Default)]
struct Incoming {
    class: Option<Class>,
    decoder: FrameDecoder,
}

impl Streams {
    pub(super) fn new(lane: Lane) -> Self {
        Self {
            lane,
            outgoing: BTreeMap::new(),
            incoming: BTreeMap::new(),
            unread: BTreeSet::new(),
            opened: BTreeSet::new(),
            received: 0,
        }
    }

    pub(super) fn queue(&mut self, class: Class, frame: &Frame) -> Queued {
        let len = frame.payload.len();
        if len >= MAX_FRAME_LEN {
            return Queued::TooLong(len);
        }
        let outgoing = self.outgoing.entry(class).or_default();
        let mut bytes = BytesMut::new();
        frame.encode(&mut bytes);
        if outgoing.bytes + bytes.len() > SEND_QUEUE_BYTES {
            return if class.droppable() { Queued::Dropped } else { Queued::Overflow(class) };
        }
        outgoing.push(bytes.freeze());
        Queued::Yes
    }

    /// Hands queued frames to quinn, the most urgent class first, as far as windows allow.
    pub(super) fn write(&mut self, connection: &mut Connection) -> Result<(), PeerFault> {
        for (class, outgoing) in &mut self.outgoing {
            connection.set_send_window(send_window(*class));
            outgoing.write(*class, connection)?;
        }
        Ok(())
    }

    /// Nothing more will be queued: once everything queued is written, says so on every stream. Returns whether the
    /// peer has it all.
    pub(super) fn finish(&mut self, connection: &mut Connection) -> bool {
        let open = self.outgoing.values().filter(|outgoing| outgoing.queue.is_empty());
        for stream in open.filter_map(|outgoing| outgoing.stream) {
            // Fails when already finished, or when the peer no longer wants it: either is an end.
            let _ = connection.send_stream(stream).finish();
        }
        self.outgoing.values().all(|outgoing| outgoing.queue.is_empty())
            && connection.streams().send_streams() == 0
    }

    /// Notes what there is to do. Nothing is read or written yet.
    pub(super) fn handle_event(
        &mut self,
        event: &StreamEvent,
        connection: &mut Connection,
    ) -> Result<(), PeerFault> {
        match event {
            StreamEvent::Opened { dir } => self.accept(*dir, connection),
            StreamEvent::Readable { id } => {
                self.unread.insert(*id);
                Ok(())
            }
            StreamEvent::Stopped { .. } => Err(PeerFault::RefusedStream),
            StreamEvent::Writable { .. } | StreamEvent::Finished { .. } | StreamEvent::Available { .. } => {
                Ok(())
            }
        }
    }

    fn accept(&mut self, dir: Dir, connection: &mut Connection) -> Result<(), PeerFault> {
        while let Some(id) = connection.streams().accept(dir) {
            if self.lane == Lane::Packets {
                return Err(PeerFault::StreamOnPackets);
            }
            self.incoming.insert(id, Incoming::default());
            self.unread.insert(id);
        }
        Ok(())
    }

    pub(super) fn has_unread(&self) -> bool {
        !self.unread.is_empty()
    }

    /// The next whole frame, as far as bytes have arrived.
    pub(super) fn read(&mut self, connection: &mut Connection) -> Result<Option<Frame>, PeerFault> {
        while let Some(id) = self.unread.first().copied() {
            if let Some(frame) = self.read_stream(id, connection)? {
                return Ok(Some(frame));
            }
            self.unread.remove(&id);
        }
        Ok(None)
    }

    fn read_stream(&mut self, id: StreamId, connection: &mut Connection) -> Result<Option<Frame>, PeerFault> {
        let Some(incoming) = self.incoming.get_mut(&id) else { return Ok(None) };
        loop {
            if let Some(frame) = incoming.decoder.next_frame()? {
                return Ok(Some(unpinned(frame)));
            }
            match next_chunk(id, connection) {
                Ok(Some(chunk)) => {
                    self.received = self.received.saturating_add(chunk.bytes.len());
                    if self.lane.is_brief() && self.received > JOIN_BYTES {
                        return Err(PeerFault::JoinBytes);
                    }
                    incoming.take(&chunk.bytes, self.lane, &mut self.opened)?;
                }
                Ok(None) => {
                    self.incoming.remove(&id);
                    return Ok(None);
                }
                Err(ReadError::Blocked) => return Ok(None),
                Err(ReadError::Reset(_)) => return Err(PeerFault::AbandonedStream),
            }
        }
    }
}

/// A frame whose payload is its own: somebody may keep it for long, and it is cut from a buffer of 64 KiB or more.
fn unpinned(frame: Frame) -> Frame {
    if frame.payload.len() >= COPY_BELOW {
        return frame;
    }
    Frame { payload: Bytes::copy_from_slice(&frame.payload), ..frame }
}

/// What has arrived in order; `None` at the stream's end.
fn next_chunk(id: StreamId, connection: &mut Connection) -> Result<Option<Chunk>, ReadError> {
    let mut stream = connection.recv_stream(id);
    let Ok(mut chunks) = stream.read(true) else { return Ok(None) };
    let chunk = chunks.next(READ_LEN);
    // Whether credit is to be sent is asked of the connection after each turn anyway.
    let _ = chunks.finalize();
    chunk
}

impl Incoming {
    fn take(&mut self, bytes: &[u8], lane: Lane, opened: &mut BTreeSet<Class>) -> Result<(), PeerFault> {
        let Some((first, rest)) = bytes.split_first() else { return Ok(()) };
        if self.class.is_some() {
            self.decoder.push(bytes);
            return Ok(());
        }
        let class = Class::from_u8(*first).ok_or(PeerFault::UnknownClass(*first))?;
        if lane.is_brief() && class != Class::Control {
            return Err(PeerFault::JoinClass);
        }
        if !opened.insert(class) {
            return Err(PeerFault::SecondStream(class));
        }
        self.class = Some(class);
        self.decoder.push(rest);
        Ok(())
    }
}

impl Outgoing {
    fn push(&mut self, bytes: Bytes) {
        self.bytes += bytes.len();
        self.queue.push_back(bytes);
    }

    fn write(&mut self, class: Class, connection: &mut Connection) -> Result<(), PeerFault> {
        if self.queue.is_empty() {
            return Ok(());
        }
        let Some(stream) = self.stream.or_else(|| self.open(class, connection)) else { return Ok(()) };
        while !self.queue.is_empty() {
            match connection.send_stream(stream).write_chunks(self.queue.make_contiguous()) {
                Ok(written) => {
                    self.bytes = self.bytes.saturating_sub(written.bytes);
                    self.queue.drain(..written.chunks);
                }
                Err(WriteError::Blocked) => break,
                Err(WriteError::Stopped(_) | WriteError::ClosedStream) => {
                    return Err(PeerFault::RefusedStream);
                }
            }
        }
        Ok(())
    }

    /// `None` while the peer allows no stream yet.
    fn open(&mut self, class: Class, connection: &mut Connection) -> Option<StreamId> {
        let stream = connection.streams().open(Dir::Uni)?;
        // Cannot fail: the stream is new.
        let _ = connection.send_stream(stream).set_priority(class.priority());
        self.stream = Some(stream);
        self.bytes += 1;
        self.queue.push_front(Bytes::copy_from_slice(&[class as u8]));
        Some(stream)
    }
}
