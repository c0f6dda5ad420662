//! Sockets, threads and the kernel.

pub mod device;
pub mod netlink;
pub mod shard;
pub mod sysctl;
pub mod tls;
pub mod tun;
mod udp;
pub mod wireguard;

pub use device::Overlay;
pub use netlink::Netlink;
pub use tun::Tun;
