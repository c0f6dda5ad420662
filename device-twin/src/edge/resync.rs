//! Saying everything again to a cloud that may have forgotten it.

use bus::Now;

use super::EdgeTwins;

impl EdgeTwins {
    /// The metadata copy was made anew: the cloud may have been restored from a backup, and not know what it was told
    /// since. What it does know is not repeated there: the versions are the same.
    pub fn handle_resynced(&mut self, now: Now) {
        for (id, twin) in &self.twins {
            if let Some(reported) = &twin.reported {
                self.outputs.reported(id, reported, twin.age(now.mono));
            }
        }
        for (device, bound) in &self.devices {
            if let Some(state) = &bound.state {
                self.outputs.state(device, state);
            }
        }
    }
}
