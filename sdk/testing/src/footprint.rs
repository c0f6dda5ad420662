//! What this process uses.

/// Resident memory in bytes, and open descriptors.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Footprint {
    pub(crate) memory: u64,
    pub(crate) descriptors: u64,
}

impl Footprint {
    /// `None` where there is no `/proc`.
    pub(crate) fn now() -> Option<Self> {
        let status = std::fs::read_to_string("/proc/self/status").ok()?;
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        let kib: u64 = resident.split_whitespace().next()?.parse().ok()?;
        let descriptors = std::fs::read_dir("/proc/self/fd").ok()?.count() as u64;
        Some(Self { memory: kib * 1024, descriptors })
    }
}
