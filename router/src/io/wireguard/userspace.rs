//! WireGuard in this process: gotatun's device on a thread of its own, between UDP and the guard.

use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::{Builder, JoinHandle};
use std::time::Instant;

use gotatun::device::DeviceBuilder;
use gotatun::device::uapi::UapiServer;
use gotatun::packet::{Ip, Packet, PacketBufPool};
use gotatun::tun::{IpRecv, IpSend, MtuWatcher};
use tokio::io::unix::AsyncFd;
use tokio::sync::oneshot;

use super::{CLIENT_MTU, Since, StartError, lock};
use crate::Guard;
use crate::io::Tun;

/// A device at work, until this is dropped.
#[derive(Debug)]
pub(super) struct Device {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
    socket: PathBuf,
}

impl Device {
    /// It has no key yet, listens nowhere, and is configured by its socket.
    pub(super) fn start(name: &str, tun: Tun, guard: Arc<Mutex<Guard>>) -> Result<Self, StartError> {
        let socket = PathBuf::from(format!("/var/run/wireguard/{name}.sock"));
        if UnixStream::connect(&socket).is_ok() {
            return Err(StartError::Busy { path: socket.display().to_string() });
        }
        let (stop, stopped) = oneshot::channel();
        let (told, started) = sync_channel(1);
        let interface = name.to_owned();
        let work = move || run(&interface, tun, &guard, stopped, &told);
        let thread = Builder::new().name("wireguard-udp".into()).spawn(work).map_err(StartError::Thread)?;
        let device = Self { stop: Some(stop), thread: Some(thread), socket };
        let ended = || StartError::Thread(io::Error::other("it ended at once"));
        started.recv().map_err(|_| ended())??;
        Ok(device)
    }

    /// Whether who configures by name speaks to this device: where it is gone, wireguard-control would start another
    /// program in its place.
    pub(super) fn is_there(&self) -> bool {
        self.thread.as_ref().is_some_and(|thread| !thread.is_finished()) && self.socket.exists()
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic has been printed by then.
            let _ = thread.join();
        }
    }
}

type Started = SyncSender<Result<(), StartError>>;

fn run(name: &str, tun: Tun, guard: &Arc<Mutex<Guard>>, stopped: oneshot::Receiver<()>, told: &Started) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return tell(told, Err(StartError::Thread(error))),
    };
    runtime.block_on(async {
        let built = async {
            let path = format!("/var/run/wireguard/{name}.sock");
            let uapi = UapiServer::default_unix_socket(name, None, None);
            let uapi = uapi.map_err(|why| StartError::Uapi { path: path.clone(), why: why.to_string() })?;
            let failed = |error: io::Error| StartError::Device(error.into());
            let to_kernel = Port::new(tun.try_clone().map_err(failed)?, guard).map_err(failed)?;
            let from_kernel = Port::new(tun, guard).map_err(failed)?;
            let device = DeviceBuilder::new().with_default_udp().with_ip_pair(to_kernel, from_kernel);
            let device = device.with_uapi(uapi).build().await;
            Ok::<_, StartError>((device.map_err(|error| StartError::Device(error.into()))?, path))
        };
        match built.await {
            Ok((device, path)) => {
                tell(told, Ok(()));
                // Its sender is dropped, never used.
                let _ = stopped.await;
                device.stop().await;
                let _ = std::fs::remove_file(path);
            }
            Err(error) => tell(told, Err(error)),
        }
    });
}

/// Whoever started the thread waits.
fn tell(told: &Started, outcome: Result<(), StartError>) {
    let _ = told.send(outcome);
}

/// The TUN, behind the guard.
struct Port {
    tun: AsyncFd<Raw>,
    guard: Arc<Mutex<Guard>>,
    clock: Since,
}

/// Tokio wants a number.
#[derive(Debug)]
struct Raw(Tun);

impl AsRawFd for Raw {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

impl Port {
    #[expect(unsafe_code, reason = "tokio has no safe way to wait for a descriptor that it does not know")]
    fn new(tun: Tun, guard: &Arc<Mutex<Guard>>) -> io::Result<Self> {
        let clock = Since(Instant::now());
        // SAFETY: a TUN has one descriptor, which is open as long as it lives; `Raw` owns it, and nobody changes it.
        let tun = unsafe { AsyncFd::register(Raw(tun)) }?;
        Ok(Self { tun, guard: Arc::clone(guard), clock })
    }
}

impl IpSend for Port {
    async fn send(&mut self, packet: Packet<Ip>) -> io::Result<()> {
        let mut packet = packet.into_bytes();
        if lock(&self.guard).let_in(&mut packet, self.clock.now()).is_ok() {
            // Lost like any packet if the interface is down; the device must go on.
            let _ = self.tun.get_ref().0.write(&packet);
        }
        Ok(())
    }
}

impl IpRecv for Port {
    async fn recv<'a>(
        &'a mut self,
        pool: &mut PacketBufPool,
    ) -> io::Result<impl Iterator<Item = Packet<Ip>> + Send + 'a> {
        loop {
            let mut packet = pool.get();
            let len = self.tun.async_io(tokio::io::Interest::READABLE, |tun| tun.0.read(&mut packet)).await?;
            packet.truncate(len);
            let passes = lock(&self.guard).let_out(&mut packet, self.clock.now()).is_ok();
            if let (true, Ok(packet)) = (passes, packet.try_into_ip()) {
                return Ok(std::iter::once(packet));
            }
        }
    }

    fn mtu(&self) -> MtuWatcher {
        MtuWatcher::new(CLIENT_MTU)
    }
}
