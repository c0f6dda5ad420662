//! Giving freed memory back.

/// Blocks of this size and above are mapped by themselves and unmapped when they are freed, and the heap's free end is
/// cut off above it: glibc's own default.
#[cfg(target_env = "gnu")]
const THRESHOLD: libc::c_int = 128 << 10;

/// Keeps the thresholds where they are. glibc raises them to the largest block that was ever freed, up to 32 MiB, and
/// an edge that once put a mapper's configuration of 4 MB together would keep twice of that for good.
#[cfg(target_env = "gnu")]
#[expect(unsafe_code, reason = "mallopt is a function of C")]
pub fn give_back() {
    // SAFETY: it takes two numbers and keeps no pointer; a value that it does not like it ignores.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, THRESHOLD);
        libc::mallopt(libc::M_TRIM_THRESHOLD, THRESHOLD);
    }
}

/// Other allocators have no such habit.
#[cfg(not(target_env = "gnu"))]
pub fn give_back() {}
