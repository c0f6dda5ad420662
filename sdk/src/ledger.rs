//! Which writes were seen, so that an id is carried out at most once.

use std::collections::BTreeMap;
use std::time::Duration;

use bus::Mono;
use bus::twin::{DeviceId, Outcome, WriteRequest, WriteResult};

/// Writes that are remembered at a time: some 17 a second for a minute, far beyond what actuators take. When all of
/// them are still of use a further write is refused, so that none runs without being remembered.
pub(crate) const MAX_WRITES: usize = 1024;

/// A result is kept this long beyond its write's end, to be sent again after a lost connection.
const KEEP: Duration = Duration::from_secs(300);

/// What to do with a write that has just come.
#[derive(Debug, PartialEq)]
pub(crate) enum Admission {
    /// Seen for the first time.
    New,
    /// On its way already: the result will come.
    Running,
    /// Done already: this was the result.
    Done(WriteResult),
    /// No room to remember it.
    Full,
}

#[derive(Debug)]
struct Entry {
    device: DeviceId,
    property: String,
    keep_until: Mono,
    result: Option<WriteResult>,
}

/// The writes of this process's life.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    writes: BTreeMap<String, Entry>,
}

impl Ledger {
    /// Opens an entry for a write that is good until `end`.
    pub(crate) fn admit(&mut self, request: &WriteRequest, end: Mono, now: Mono) -> Admission {
        if let Some(entry) = self.writes.get(&request.id) {
            return entry.result.clone().map_or(Admission::Running, Admission::Done);
        }
        if self.writes.len() >= MAX_WRITES {
            self.writes.retain(|_, e| e.result.is_none() || e.keep_until > now);
        }
        if self.writes.len() >= MAX_WRITES {
            return Admission::Full;
        }
        let entry = Entry {
            device: request.device.clone(),
            property: request.property.clone(),
            keep_until: end.max(now) + KEEP,
            result: None,
        };
        self.writes.insert(request.id.clone(), entry);
        Admission::New
    }

    /// Notes how a write ended; the first word counts. `None` if nobody asked for it or it had ended already.
    pub(crate) fn finish(&mut self, id: &str, outcome: Outcome, detail: String) -> Option<&WriteResult> {
        let entry = self.writes.get_mut(id).filter(|e| e.result.is_none())?;
        Some(entry.result.insert(WriteResult {
            id: id.to_owned(),
            device: entry.device.clone(),
            property: entry.property.clone(),
            outcome,
            detail,
        }))
    }

    /// The writes of a device that have not ended.
    pub(crate) fn running(&self, device: &DeviceId) -> Vec<String> {
        let running = self.writes.iter().filter(|(_, e)| e.result.is_none() && e.device == *device);
        running.map(|(id, _)| id.clone()).collect()
    }

    /// Every result that is still kept.
    pub(crate) fn results(&self) -> impl Iterator<Item = &WriteResult> {
        self.writes.values().filter_map(|e| e.result.as_ref())
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.writes.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bus::{Name, UnixMillis, Value};

    fn request(id: &str) -> WriteRequest {
        WriteRequest {
            id: id.into(),
            device: device(),
            property: "position".into(),
            value: Value::Float(1.0),
            sent: UnixMillis(0),
            ttl_ms: 1000,
            cause: "test".into(),
        }
    }

    fn device() -> DeviceId {
        DeviceId { namespace: Name::new("water").unwrap(), name: Name::new("valve").unwrap() }
    }

    fn done(id: &str) -> WriteResult {
        let (device, property) = (device(), "position".into());
        WriteResult { id: id.into(), device, property, outcome: Outcome::Succeeded, detail: "x".into() }
    }

    const END: Mono = Mono(1_000_000);

    #[test]
    fn an_id_runs_once_and_its_first_result_is_repeated() {
        let mut ledger = Ledger::default();
        assert_eq!(ledger.admit(&request("a"), END, Mono(0)), Admission::New);
        assert_eq!(ledger.admit(&request("a"), END, Mono(1)), Admission::Running);
        assert_eq!(ledger.running(&device()), ["a"]);
        assert_eq!(ledger.finish("a", Outcome::Succeeded, "x".into()), Some(&done("a")));
        assert_eq!(ledger.finish("a", Outcome::Unknown, "y".into()), None);
        assert_eq!(ledger.finish("never", Outcome::Unknown, "y".into()), None);
        assert_eq!(ledger.admit(&request("a"), END, Mono(2)), Admission::Done(done("a")));
        assert_eq!(ledger.results().collect::<Vec<_>>(), [&done("a")]);
        assert!(ledger.running(&device()).is_empty());
    }

    #[test]
    fn a_full_ledger_refuses_rather_than_forget_what_may_come_again() {
        let mut ledger = Ledger::default();
        for i in 0..MAX_WRITES {
            let id = i.to_string();
            assert_eq!(ledger.admit(&request(&id), END, Mono(0)), Admission::New);
            if i > 0 {
                ledger.finish(&id, Outcome::Succeeded, String::new());
            }
        }
        let kept_until = END + KEEP;
        assert_eq!(ledger.admit(&request("more"), END, Mono(kept_until.0 - 1)), Admission::Full);
        assert_eq!(ledger.admit(&request("more"), kept_until, kept_until), Admission::New);
        assert_eq!(ledger.len(), 2, "one is running, one is new");
    }
}
