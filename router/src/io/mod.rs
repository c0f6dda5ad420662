//! Sockets, threads and the kernel.

pub mod device;
pub mod netlink;
pub mod sysctl;
pub mod tun;

pub use device::Overlay;
pub use netlink::Netlink;
pub use tun::Tun;
