//! What a node has heard from a mapper.

use std::collections::{BTreeMap, VecDeque};

use bus::twin::{DeviceId, Outcome, ReportBody, ReportMany, WriteResult};
use bus::{Quality, Sample, UnixMillis, Value};

/// Reports that are remembered per property; the oldest go.
const MAX_SAMPLES: usize = 1024;

/// Results that are remembered; the oldest go.
const MAX_RESULTS: usize = 1024;

/// Everything that a mapper has said.
#[derive(Debug, Default)]
pub struct Hearing {
    state: Option<String>,
    samples: BTreeMap<(DeviceId, String), VecDeque<Sample>>,
    results: VecDeque<WriteResult>,
}

impl Hearing {
    pub(crate) fn handle_state(&mut self, state: &str) {
        self.state = Some(state.to_owned());
    }

    /// The connection has ended.
    pub(crate) fn handle_gone(&mut self) {
        if self.state.as_deref() != Some("offline") {
            self.state = Some("lost".to_owned());
        }
    }

    pub(crate) fn handle_result(&mut self, result: WriteResult) {
        if self.results.len() == MAX_RESULTS {
            self.results.pop_front();
        }
        self.results.push_back(result);
    }

    pub(crate) fn handle_report(&mut self, device: &DeviceId, report: ReportMany) {
        for (property, body) in report {
            let samples = self.samples.entry((device.clone(), property)).or_default();
            if samples.len() == MAX_SAMPLES {
                samples.pop_front();
            }
            samples.push_back(ReportBody::into_sample(body, UnixMillis(0)));
        }
    }

    pub(crate) fn forget(&mut self, device: &DeviceId) {
        self.samples.retain(|(of, _), _| of != device);
    }

    /// `online`; `offline` after a goodbye, `lost` without one; `None` before the first word.
    pub fn state(&self) -> Option<&str> {
        self.state.as_deref()
    }

    /// Reports of one property, oldest first.
    pub fn samples(&self, device: &DeviceId, property: &str) -> impl Iterator<Item = &Sample> {
        self.samples.get(&(device.clone(), property.to_owned())).into_iter().flatten()
    }

    /// The value that was reported last, if it is not bad.
    pub fn value(&self, device: &DeviceId, property: &str) -> Option<&Value> {
        let last = self.samples(device, property).last()?;
        (last.quality != Quality::Bad).then_some(&last.value)
    }

    /// The result of one write.
    pub fn result(&self, id: &str) -> Option<&WriteResult> {
        self.results.iter().find(|result| result.id == id)
    }

    /// All different outcomes that were told of one write.
    pub fn outcomes(&self, id: &str) -> Vec<Outcome> {
        let mut outcomes: Vec<Outcome> =
            self.results.iter().filter(|r| r.id == id).map(|r| r.outcome).collect();
        outcomes.dedup();
        outcomes
    }
}
