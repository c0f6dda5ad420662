//! The right to move a device once, until a moment.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bus::twin::{Outcome, WriteRequest};
use bus::{Mono, Now, UnixMillis, Value};

use crate::Error;

/// Where time comes from: the real clocks in [`run`](crate::run), a moment of the test's choice in tests.
#[derive(Clone)]
pub(crate) struct Clock(pub(crate) Arc<dyn Fn() -> Now + Send + Sync>);

impl Clock {
    pub(crate) fn now(&self) -> Now {
        (self.0)()
    }
}

/// The end of a write's life, on both clocks: a wall clock that jumps ahead ends it, one that jumps back cannot
/// prolong it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Deadline {
    pub(crate) mono: Mono,
    pub(crate) wall: UnixMillis,
}

impl Deadline {
    /// `sent` + ttl and receipt + ttl, whichever ends first.
    pub(crate) fn of(request: &WriteRequest, receipt: Now) -> Self {
        Self {
            mono: receipt.mono + Duration::from_millis(request.ttl_ms),
            wall: UnixMillis(request.sent.0.saturating_add(request.ttl_ms)),
        }
    }

    /// How long it lasts; zero when it is over.
    pub(crate) fn left(&self, now: Now) -> Duration {
        self.mono.since(now.mono).min(self.wall.since(now.wall))
    }

    pub(crate) fn is_over(&self, now: Now) -> bool {
        self.left(now).is_zero()
    }
}

/// The right to carry out one write, which only the SDK grants. It is used up by [`consume`](Self::consume), which a
/// driver calls right before the first byte leaves for the device, after every wait for a lock or a slow bus: too late
/// there means that nothing moves. Without having consumed it no driver can report success.
///
/// Nobody but the SDK can make one:
///
/// ```compile_fail,E0451
/// let permit = kubebus_sdk::WritePermit { ..todo!() };
/// ```
/// ```compile_fail,E0599
/// let permit = kubebus_sdk::WritePermit::default();
/// ```
/// and none is used twice:
/// ```compile_fail,E0382
/// # fn driver(permit: kubebus_sdk::WritePermit) -> Result<(), kubebus_sdk::Error> {
/// let first = permit.consume()?;
/// let second = permit.consume()?;
/// # Ok(())
/// # }
/// ```
#[must_use = "a permit that is dropped moves nothing"]
pub struct WritePermit {
    cause: String,
    deadline: Deadline,
    clock: Clock,
    consumed: Arc<AtomicBool>,
}

impl WritePermit {
    /// The permit, and what tells later whether it was consumed.
    pub(crate) fn grant(cause: String, deadline: Deadline, clock: Clock) -> (Self, Arc<AtomicBool>) {
        let consumed = Arc::new(AtomicBool::new(false));
        (Self { cause, deadline, clock, consumed: Arc::clone(&consumed) }, consumed)
    }

    /// Who moves the device and why, for the driver's log.
    pub fn cause(&self) -> &str {
        &self.cause
    }

    /// How long the write may still begin; zero when it is over.
    pub fn left(&self) -> Duration {
        self.deadline.left(self.clock.now())
    }

    /// Whether it is still worth going on towards the write; decides nothing, [`consume`](Self::consume) does.
    pub fn check(&self) -> Result<(), Error> {
        if self.left().is_zero() { Err(Error::Expired) } else { Ok(()) }
    }

    /// The last look at the clock: call it right before the device hears of the write.
    pub fn consume(self) -> Result<Consumed, Error> {
        let now = self.clock.now();
        self.consume_if_fresh(now)
    }

    fn consume_if_fresh(self, now: Now) -> Result<Consumed, Error> {
        if self.deadline.is_over(now) {
            return Err(Error::Expired);
        }
        self.consumed.store(true, Ordering::SeqCst);
        Ok(Consumed(()))
    }
}

impl fmt::Debug for WritePermit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WritePermit").field("cause", &self.cause).field("deadline", &self.deadline).finish()
    }
}

/// A permit that was fresh when the write began: what a driver needs to report success.
#[derive(Debug)]
pub struct Consumed(());

impl Consumed {
    /// The device took the value over.
    pub fn applied(self) -> WriteOutcome {
        WriteOutcome { readback: None, pending: false }
    }

    /// The device took it over and says that it now holds `readback`.
    pub fn read_back(self, readback: Value) -> WriteOutcome {
        WriteOutcome { readback: Some(readback), pending: false }
    }

    /// The device has accepted it and is still on its way (a valve that travels).
    pub fn accepted(self) -> WriteOutcome {
        WriteOutcome { readback: None, pending: true }
    }
}

/// How a write went well; made by [`Consumed`].
#[derive(Debug, PartialEq)]
pub struct WriteOutcome {
    pub(crate) readback: Option<Value>,
    pub(crate) pending: bool,
}

/// What the node is told of a write that failed. Once the permit is consumed only the device's own refusal proves
/// that nothing moved; everything else is `Unknown` and wants a look at the device.
pub(crate) fn outcome_of(error: &Error, consumed: bool) -> Outcome {
    match (error, consumed) {
        (Error::Device(_), _) => Outcome::Failed,
        (_, true) => Outcome::Unknown,
        (Error::Expired, false) => Outcome::Expired,
        (Error::BadAddress { .. } | Error::Unsupported(_), false) => Outcome::Rejected,
        (
            Error::Transient { .. } | Error::Timeout(_) | Error::Auth(_) | Error::Config(_) | Error::Bug(_),
            false,
        ) => Outcome::Failed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bus::Name;
    use bus::twin::DeviceId;
    use std::sync::atomic::AtomicU64;

    fn request(sent: u64, ttl_ms: u64) -> WriteRequest {
        let name = |n| Name::new(n).unwrap();
        WriteRequest {
            id: "w".into(),
            device: DeviceId { namespace: name("water"), name: name("valve") },
            property: "position".into(),
            value: Value::Float(1.0),
            sent: UnixMillis(sent),
            ttl_ms,
            cause: "test".into(),
        }
    }

    fn now(mono_ms: u64, wall_ms: u64) -> Now {
        Now { mono: Mono(mono_ms * 1000), wall: UnixMillis(wall_ms) }
    }

    #[test]
    fn a_write_lives_from_its_sending_and_from_its_receipt_whichever_ends_first() {
        let late = Deadline::of(&request(1000, 500), now(10, 1400));
        assert_eq!(late.left(now(10, 1400)), Duration::from_millis(100));
        let from_the_future = Deadline::of(&request(9000, 500), now(10, 1000));
        assert_eq!(from_the_future.left(now(10, 1000)), Duration::from_millis(500));
        let dead = Deadline::of(&request(1000, 500), now(10, 1500));
        assert!(dead.is_over(now(10, 1500)));
        let overflowing = Deadline::of(&request(u64::MAX, u64::MAX), now(10, 1000));
        assert!(!overflowing.is_over(now(20, 2000)));
    }

    #[test]
    fn a_wall_clock_that_jumps_ends_a_write_and_never_prolongs_it() {
        let deadline = Deadline::of(&request(1000, 500), now(10, 1000));
        assert!(deadline.is_over(now(11, 9000)));
        assert!(deadline.is_over(now(510, 0)));
    }

    #[test]
    fn a_permit_that_waits_too_long_is_worth_nothing() {
        let mono = Arc::new(AtomicU64::new(0));
        let shown = Arc::clone(&mono);
        let clock = Clock(Arc::new(move || now(shown.load(Ordering::SeqCst), 1000)));
        let deadline = Deadline::of(&request(1000, 500), clock.now());

        let (permit, consumed) = WritePermit::grant("test".into(), deadline, clock.clone());
        assert_eq!((permit.check(), permit.left()), (Ok(()), Duration::from_millis(500)));
        mono.store(500, Ordering::SeqCst);
        assert_eq!(permit.check(), Err(Error::Expired));
        assert_eq!(permit.consume().unwrap_err(), Error::Expired);
        assert!(!consumed.load(Ordering::SeqCst));

        mono.store(499, Ordering::SeqCst);
        let (permit, consumed) = WritePermit::grant("test".into(), deadline, clock);
        assert_eq!(
            permit.consume().unwrap().read_back(Value::Int(7)),
            WriteOutcome { readback: Some(Value::Int(7)), pending: false }
        );
        assert!(consumed.load(Ordering::SeqCst));
    }

    #[test]
    fn only_what_surely_moved_nothing_is_said_to_have_moved_nothing() {
        let text = || "x".to_owned();
        let table = [
            (Error::transient("x"), Outcome::Failed, Outcome::Unknown),
            (Error::Timeout(text()), Outcome::Failed, Outcome::Unknown),
            (Error::Auth(text()), Outcome::Failed, Outcome::Unknown),
            (Error::Config(text()), Outcome::Failed, Outcome::Unknown),
            (Error::Bug(text()), Outcome::Failed, Outcome::Unknown),
            (Error::Device(text()), Outcome::Failed, Outcome::Failed),
            (Error::Unsupported(text()), Outcome::Rejected, Outcome::Unknown),
            (Error::BadAddress { point: text(), why: text() }, Outcome::Rejected, Outcome::Unknown),
            (Error::Expired, Outcome::Expired, Outcome::Unknown),
        ];
        for (error, before, after) in table {
            assert_eq!((outcome_of(&error, false), outcome_of(&error, true)), (before, after), "{error:?}");
        }
    }
}
