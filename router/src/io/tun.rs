//! The kernel's end of the overlay: a TUN interface, one IP packet or super-packet per read and write.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::ioctl::{IntegerSetter, Opcode, Updater, ioctl, opcode};
use thiserror::Error;

use super::netlink::{Netlink, NetlinkError};
use crate::offload::{Group, Offload, VirtioHeader};

const CLONE_DEVICE: &str = "/dev/net/tun";

/// `TUNSETIFF` of linux/if_tun.h.
const TUN_SET_INTERFACE: Opcode = opcode::write::<libc::c_int>(b'T', 202);

/// `TUNSETOFFLOAD` of linux/if_tun.h.
const TUN_SET_OFFLOAD: Opcode = opcode::write::<libc::c_uint>(b'T', 208);

const TUN_WITH_VIRTIO: u16 = (libc::IFF_TUN | libc::IFF_NO_PI | libc::IFF_VNET_HDR) as u16;

/// What the far side of a TUN takes from the kernel unfinished: linux/if_tun.h.
const TUN_F_CSUM: u32 = 0x01;
const TUN_F_TSO: u32 = 0x02 | 0x04;
const TUN_F_TSO_ECN: u32 = 0x08;
const TUN_F_USO: u32 = 0x20 | 0x40;

/// Payloads in one write: [`crate::offload::coalesce`] makes no more; virtio header and packet headers come on top.
const MAX_PARTS: usize = 2 + 64;

/// A TUN interface (`IFF_TUN | IFF_NO_PI | IFF_VNET_HDR`). Reads and writes do not block. The interface goes when the last
/// descriptor of it is closed.
#[derive(Debug)]
pub struct Tun {
    fd: OwnedFd,
    name: String,
    offload: Offload,
}

/// Why there is no TUN interface.
#[derive(Debug, Error)]
pub enum TunError {
    #[error("'{0}' is no interface name: use 1 to 15 of the printable ASCII characters but '/', ':' and '%'")]
    Name(String),
    #[error(
        "there is no {CLONE_DEVICE}: load the kernel module with 'modprobe tun', or give the container the device \
         with '--device {CLONE_DEVICE}'"
    )]
    NoTunDriver(#[source] io::Error),
    #[error(
        "may not open {CLONE_DEVICE}: run as root, or give this user read and write access with \
         'chmod 0666 {CLONE_DEVICE}'"
    )]
    MayNotOpen(#[source] io::Error),
    #[error(
        "may not create the interface '{name}': run as root, grant the binary 'cap_net_admin+ep' with setcap, or \
         start the container with '--cap-add NET_ADMIN'"
    )]
    MayNotCreate { name: String, source: io::Error },
    #[error(
        "an interface '{name}' is already in use: stop its owner, or remove it with 'ip link del {name}'"
    )]
    NameBusy { name: String, source: io::Error },
    #[error("cannot open {CLONE_DEVICE}")]
    Open(#[source] io::Error),
    #[error("cannot create the interface '{name}'")]
    Create { name: String, source: io::Error },
    #[error("cannot set the MTU of the TUN")]
    Mtu(#[from] NetlinkError),
}

impl Tun {
    /// Creates the interface `name` in the calling thread's network namespace. It is down and has no address.
    ///
    /// `mtu` in bytes.
    pub fn open(name: &str, mtu: u32) -> Result<Self, TunError> {
        let request = InterfaceRequest::new(name)?;
        let fd = open_clone_device()?;
        attach(&fd, request).map_err(|errno| create_error(name, errno))?;
        Netlink::open()?.set_mtu(name, mtu)?;
        Ok(Self { fd, name: name.to_owned(), offload: Offload::default() })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// A second handle on the same queue.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { fd: self.fd.try_clone()?, name: self.name.clone(), offload: self.offload })
    }

    /// Asks the kernel for super-packets and partial checksums, as far as it knows them. From then on [`Self::read`] is of
    /// no use: read with [`Self::read_super`].
    pub fn enable_offload(&mut self) {
        let tcp = TUN_F_CSUM | TUN_F_TSO | TUN_F_TSO_ECN;
        self.offload = if self.set_offload(tcp | TUN_F_USO).is_ok() {
            Offload { tcp: true, udp: true }
        } else {
            Offload { tcp: self.set_offload(tcp).is_ok(), udp: false }
        };
    }

    /// What the kernel gives and takes uncut.
    pub fn offload(&self) -> Offload {
        self.offload
    }

    #[expect(unsafe_code, reason = "no safe wrapper of TUNSETOFFLOAD exists")]
    fn set_offload(&self, flags: u32) -> Result<(), Errno> {
        // SAFETY: TUNSETOFFLOAD takes a number, and refuses bits that it does not know.
        unsafe { ioctl(&self.fd, IntegerSetter::<TUN_SET_OFFLOAD>::new_usize(flags as usize)) }
    }

    /// Reads one packet; `WouldBlock` when there is none. What does not fit into `buffer` is cut off: it should hold
    /// the MTU.
    pub fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        Ok(self.read_raw(buffer)?.1)
    }

    /// Reads one packet or super-packet, and what the kernel says about it: `None` if that is nothing that
    /// [`Self::enable_offload`] asks for. `buffer` should hold 64 KiB.
    pub fn read_super(&self, buffer: &mut [u8]) -> io::Result<(Option<VirtioHeader>, usize)> {
        let (header, len) = self.read_raw(buffer)?;
        Ok((VirtioHeader::decode(header), len))
    }

    fn read_raw(&self, buffer: &mut [u8]) -> io::Result<([u8; VirtioHeader::LEN], usize)> {
        let mut header = [0; VirtioHeader::LEN];
        let read = rustix::io::readv(&self.fd, &mut [IoSliceMut::new(&mut header), IoSliceMut::new(buffer)])?;
        Ok((header, read.saturating_sub(VirtioHeader::LEN)))
    }

    /// Writes one packet, whole or not at all. Fails with `EIO` while the interface is down.
    pub fn write(&self, packet: &[u8]) -> io::Result<()> {
        let header = VirtioHeader::PLAIN.encode(false, 0);
        rustix::io::writev(&self.fd, &[IoSlice::new(&header), IoSlice::new(packet)])?;
        Ok(())
    }

    /// Writes a group, whole or not at all.
    pub fn write_group(&self, group: &Group) -> io::Result<()> {
        let (virtio, (headers, payloads)) = (group.virtio(), group.parts());
        let mut parts = [IoSlice::new(&[]); MAX_PARTS];
        let used = [&virtio, headers].into_iter().chain(payloads.iter().map(|payload| &payload[..]));
        let mut count = 0;
        for (place, part) in parts.iter_mut().zip(used) {
            *place = IoSlice::new(part);
            count += 1;
        }
        rustix::io::writev(&self.fd, parts.get(..count).unwrap_or_default())?;
        Ok(())
    }
}

impl AsFd for Tun {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn open_clone_device() -> Result<OwnedFd, TunError> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NONBLOCK;
    rustix::fs::open(CLONE_DEVICE, flags, Mode::empty()).map_err(|errno| match errno {
        Errno::NOENT | Errno::NODEV | Errno::NXIO => TunError::NoTunDriver(errno.into()),
        Errno::ACCESS | Errno::PERM => TunError::MayNotOpen(errno.into()),
        _ => TunError::Open(errno.into()),
    })
}

/// `EINVAL` is the kernel's word for "that name is an interface, but no TUN".
fn create_error(name: &str, errno: Errno) -> TunError {
    let (name, source) = (name.to_owned(), errno.into());
    match errno {
        Errno::PERM | Errno::ACCESS => TunError::MayNotCreate { name, source },
        Errno::BUSY | Errno::EXIST | Errno::INVAL => TunError::NameBusy { name, source },
        _ => TunError::Create { name, source },
    }
}

/// `struct ifreq` of linux/if.h as the call uses it: a name, flags, and room for the rest of the C union.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
struct InterfaceRequest {
    name: [u8; libc::IFNAMSIZ],
    flags: u16,
    rest: [u8; 22],
}

const _: () = assert!(size_of::<InterfaceRequest>() >= size_of::<libc::ifreq>());

impl InterfaceRequest {
    const EMPTY: Self = Self { name: [0; libc::IFNAMSIZ], flags: 0, rest: [0; 22] };

    fn new(name: &str) -> Result<Self, TunError> {
        let printable = |b: u8| b.is_ascii_graphic() && !b"/:%".contains(&b);
        let fits = (1..libc::IFNAMSIZ).contains(&name.len());
        if !fits || !name.bytes().all(printable) {
            return Err(TunError::Name(name.chars().take(80).collect()));
        }
        let mut request = Self { flags: TUN_WITH_VIRTIO, ..Self::EMPTY };
        request.name[..name.len()].copy_from_slice(name.as_bytes());
        Ok(request)
    }
}

#[expect(unsafe_code, reason = "no safe wrapper of TUNSETIFF exists")]
fn attach(fd: &OwnedFd, mut request: InterfaceRequest) -> Result<(), Errno> {
    // SAFETY: TUNSETIFF reads and writes one `struct ifreq`, which `InterfaceRequest` is at least as large as; any
    // bytes are a valid value of it.
    unsafe { ioctl(fd, Updater::<TUN_SET_INTERFACE, _>::new(&mut request)) }
}
