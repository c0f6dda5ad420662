//! The two traits that a vendor writes.

use std::future::Future;

use bus::twin::DeviceId;
use bus::{Value, ValueType};
use serde::de::DeserializeOwned;

use crate::{Error, Samples, WriteOutcome, WritePermit};

/// A protocol: how to open a session with a device.
pub trait Mapper: Send + Sync + 'static {
    /// Connection settings of one device; an empty object if the device names none.
    type Config: DeserializeOwned + Send + Sync + 'static;
    /// Where one property lives in the device: a register, a node id, a topic.
    type Address: DeserializeOwned + Send + Sync + 'static;
    type Session: Session<Address = Self::Address> + 'static;

    /// Connects to the device and must not change anything in it. Dropped after 30 s; tried again with backoff by the
    /// kind of its error.
    fn open(
        config: &Self::Config,
        context: &Context,
    ) -> impl Future<Output = Result<Self::Session, Error>> + Send;
}

/// A connection to one device. One task of the SDK owns it and calls one method at a time, so it needs no locks.
/// A call may be dropped at any await; the session is then dropped with it, never used again.
pub trait Session: Send {
    type Address: Send + Sync;

    /// Reads all points that are due, as few round trips as the protocol allows, and puts each into `out`. It gets no
    /// permit because it must not write. An error here concerns the whole batch; for one point see
    /// [`Samples::failed`]. Dropped after 10 s.
    fn read(
        &mut self,
        batch: &[&Point<Self::Address>],
        out: &mut Samples,
    ) -> impl Future<Output = Result<(), Error>> + Send;

    /// Writes one value, of the property's type and within its range. [`WritePermit::consume`] comes right before the
    /// device hears of it. Dropped when the write's time is over.
    fn write(
        &mut self,
        point: &Point<Self::Address>,
        value: Value,
        permit: WritePermit,
    ) -> impl Future<Output = Result<WriteOutcome, Error>> + Send;

    /// Says goodbye, if the protocol has a word for it. Dropped after 2 s; not called on a session that failed.
    fn close(self) -> impl Future<Output = ()> + Send
    where
        Self: Sized,
    {
        async {}
    }
}

/// What a session is opened for.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Context {
    pub device: DeviceId,
}

/// One property of a device.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Point<Address> {
    pub name: String,
    pub value_type: ValueType,
    pub address: Address,
}
