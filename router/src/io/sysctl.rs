//! Kernel switches of the calling thread's network namespace.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

const IPV4_FORWARDING: &str = "/proc/sys/net/ipv4/ip_forward";
const IPV6_FORWARDING: &str = "/proc/sys/net/ipv6/conf/all/forwarding";
const IPV6_INTERFACES: &str = "/proc/sys/net/ipv6/conf";

/// Why a switch could not be read or set.
#[derive(Debug, Error)]
pub enum SysctlError {
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error(
        "cannot write '{value}' to {}: run as root, or let the container's host set it (docker: '--sysctl')",
        path.display()
    )]
    Write { path: PathBuf, value: &'static str, source: io::Error },
}

/// Lets the kernel pass packets between interfaces, IPv4 and, where the kernel has it, IPv6.
///
/// A forwarding kernel forgets the default route that an IPv6 router announced to it, and with it perhaps our uplink,
/// unless `accept_ra` is 2 ("even if forwarding", Documentation/networking/ip-sysctl.rst): interfaces that listen to
/// announcements are told so first.
pub fn enable_forwarding() -> Result<(), SysctlError> {
    set(Path::new(IPV4_FORWARDING), "1")?;
    if Path::new(IPV6_FORWARDING).exists() {
        keep_router_announcements()?;
        set(Path::new(IPV6_FORWARDING), "1")?;
    }
    Ok(())
}

/// Whether addresses of IPv6 can be given to the interface.
pub fn has_ipv6(dev: &str) -> bool {
    let path = Path::new(IPV6_INTERFACES).join(dev).join("disable_ipv6");
    fs::read_to_string(path).is_ok_and(|text| text.trim() == "0")
}

fn keep_router_announcements() -> Result<(), SysctlError> {
    let interfaces = Path::new(IPV6_INTERFACES);
    let read_error = |source| SysctlError::Read { path: interfaces.to_owned(), source };
    for entry in fs::read_dir(interfaces).map_err(read_error)? {
        let path = entry.map_err(read_error)?.path().join("accept_ra");
        // An interface may go between listing and reading.
        if fs::read_to_string(&path).is_ok_and(|text| text.trim() == "1") {
            set(&path, "2")?;
        }
    }
    Ok(())
}

/// Writes only what differs: `/proc/sys` may be read-only and already right.
fn set(path: &Path, value: &'static str) -> Result<(), SysctlError> {
    let now =
        fs::read_to_string(path).map_err(|source| SysctlError::Read { path: path.to_owned(), source })?;
    if now.trim() == value {
        return Ok(());
    }
    fs::write(path, value).map_err(|source| SysctlError::Write { path: path.to_owned(), value, source })
}
