//! The two traits that a vendor writes.

use std::future::Future;

use bus::twin::DeviceId;
use bus::{Value, ValueType};
use schemars::JsonSchema;
use serde::de::DeserializeOwned;

use crate::scale::Scale;
use crate::shared::Shared;
use crate::{Batch, Error, Found, Manifest, Samples, Sink, Span, WriteOutcome, WritePermit};

/// A protocol: how to open a session with a device.
pub trait Mapper: Send + Sync + 'static {
    /// Connection settings of one device; an empty object if the device names none.
    type Config: DeserializeOwned + JsonSchema + Send + Sync + 'static;
    /// Where one property lives in the device: a register, a node id, a topic. The keys `scale` and `shift` beside it are the
    /// SDK's: see [`Point`].
    type Address: DeserializeOwned + JsonSchema + Send + Sync + 'static;
    type Session: Session<Address = Self::Address> + 'static;

    /// What this mapper is and can do.
    fn manifest() -> Manifest;

    /// What the device hangs on, if others may hang on it too: a serial line, a gateway. The SDK makes one call at a time
    /// to devices of one bus, and they share what is in [`Context::bus`].
    fn bus(_config: &Self::Config) -> Option<String> {
        None
    }

    /// Where a point lies, if several can be read in one request; the SDK then calls [`Session::read`] once a request.
    /// Limits are in the [`Manifest`].
    fn span(_address: &Self::Address) -> Option<Span> {
        None
    }

    /// Connects to the device and must not change anything in it. Dropped after 30 s; tried again with backoff by the
    /// kind of its error.
    fn open(
        config: &Self::Config,
        context: &Context<Self::Session>,
    ) -> impl Future<Output = Result<Self::Session, Error>> + Send;

    /// Devices that can be found from here: on this line, in this network, below this server. Must not change anything.
    fn discover(_config: &Self::Config) -> impl Future<Output = Result<Vec<Found>, Error>> + Send {
        async { Err(Error::Unsupported("discovery".to_owned())) }
    }
}

/// A connection to one device. One task of the SDK owns it and calls one method at a time, so it needs no locks.
/// A call may be dropped at any await; the session is then dropped with it, never used again.
pub trait Session: Send {
    type Address: Send + Sync;
    /// What devices of one bus share, such as the open serial port: see [`Context::bus`]. `()` if nothing.
    type Bus: Send + 'static;

    /// Reads all points of a batch, as few round trips as the protocol allows, and puts each into `out`. It gets no
    /// permit because it must not write. An error here concerns the whole batch; for one point see
    /// [`Samples::failed`]. Dropped after the manifest's [timeout](Manifest::timeout).
    fn read(
        &mut self,
        batch: &Batch<'_, Self::Address>,
        out: &mut Samples,
    ) -> impl Future<Output = Result<(), Error>> + Send;

    /// Writes one value: of the property's type, raw where it has a scale, its range checked. [`WritePermit::consume`] comes
    /// right before the device hears of it. Dropped when the write's time is over.
    fn write(
        &mut self,
        point: &Point<Self::Address>,
        value: Value,
        permit: WritePermit,
    ) -> impl Future<Output = Result<WriteOutcome, Error>> + Send;

    /// Asks the device to push these points, which have no period of their own; called after it was opened and when they
    /// change, in place of what was asked for before. What comes goes into `sink`, from a task that ends with the session;
    /// each point's present value first, if the protocol has it: what an ended session pushed is bad after 10 s unless it
    /// is said again. Dropped after the manifest's timeout.
    fn subscribe(
        &mut self,
        _points: &[&Point<Self::Address>],
        _sink: Sink,
    ) -> impl Future<Output = Result<(), Error>> + Send {
        async { Err(Error::Unsupported("pushing: give the property a collectCycle".to_owned())) }
    }

    /// Whether the device is still there; asked when nothing was heard of it for half a minute. Must not change anything.
    /// Dropped after the manifest's timeout.
    fn probe(&mut self) -> impl Future<Output = Result<(), Error>> + Send {
        async { Ok(()) }
    }

    /// Says goodbye, if the protocol has a word for it. Dropped after 2 s; not called on a session that failed.
    fn close(self) -> impl Future<Output = ()> + Send
    where
        Self: Sized,
    {
        async {}
    }
}

/// What a session is opened for.
#[derive(Debug)]
#[non_exhaustive]
pub struct Context<S: Session> {
    pub device: DeviceId,
    /// What all devices of this device's [`Mapper::bus`] share; its own where the mapper names no bus.
    pub bus: Shared<S::Bus>,
}

/// One property of a device.
///
/// A device's number is `raw * scale + shift` in the property's unit, where `scale` and `shift` are numbers beside the
/// address (`visitors.configData`): `{"register": "HoldingRegister", "offset": 2, "scale": 0.1}`. The SDK counts, and
/// takes both keys out before [`Mapper::Address`] is read: a driver reads and writes raw numbers. A raw number of an int
/// property is rounded to the nearest when it is written, half away from zero, and so is its value when it is read; without
/// a scale every number goes through as it is.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Point<Address> {
    pub name: String,
    pub value_type: ValueType,
    pub address: Address,
    pub(crate) scale: Scale,
}
