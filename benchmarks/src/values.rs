//! Values as nodes keep them.

use bytes::Bytes;

/// As an edge sees it: what the sync calls a name.
pub(crate) fn property_name(device: usize, property: usize) -> String {
    format!("desired/plant/station-{device:04}/value-{property:02}")
}

/// A number that differs for each property and each time.
pub(crate) fn number(device: usize, property: usize, time: usize) -> f64 {
    let mixed = (device as u64 + 1)
        .wrapping_mul(0x9e37_79b9_7f4a_7c15)
        .wrapping_add((property as u64 + 1).wrapping_mul(0xbf58_476d_1ce4_e5b9))
        .wrapping_add((time as u64 + 1).wrapping_mul(0x94d0_49bb_1331_11eb));
    ((mixed ^ (mixed >> 29)) % 1_000_000) as f64 / 1000.0
}

/// A wish as the cloud stores it: value, version, when it was issued, who wished it.
pub(crate) fn desired(device: usize, property: usize, time: usize) -> Bytes {
    let value = (2_u8, [number(device, property, time)]);
    let version = (0_u32, time as u64 * 20_000 + device as u64 * 20 + property as u64);
    let wish = (value, version, 1_700_000_000_000_u64 + time as u64 * 1000, "kubebus twin set");
    // Writing to memory cannot fail.
    minicbor::to_vec(wish).map(Bytes::from).unwrap_or_default()
}
