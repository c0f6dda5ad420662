//! TCP, and the pumping of bytes that serial lines share with it.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::Hub;
use super::fault::{Conversation, Direction, Do, Mode};
use crate::fixture::Endpoint;

/// Largest chunk, in bytes.
const CHUNK: usize = 64 * 1024;

/// How long a request that the mapper gets no answer to may take to be carried out.
const LAST_REQUEST: Duration = Duration::from_secs(2);

/// A loopback port that stays ours while nobody listens on it: connecting to it is refused then.
#[derive(Debug)]
pub struct Port(TcpSocket);

impl Port {
    pub fn reserve() -> io::Result<Self> {
        let socket = TcpSocket::new_v4()?;
        socket.set_reuseaddr(true)?;
        socket.bind(SocketAddr::from(([127, 0, 0, 1], 0)))?;
        Ok(Self(socket))
    }

    pub fn address(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }

    /// Listens, until the listener is dropped.
    pub fn listen(&self) -> io::Result<tokio::net::TcpListener> {
        let socket = TcpSocket::new_v4()?;
        socket.set_reuseaddr(true)?;
        socket.bind(self.address()?)?;
        socket.listen(64)
    }
}

pub(super) fn serve_tcp(device: SocketAddr, hub: Arc<Hub>, tasks: &mut JoinSet<()>) -> io::Result<Endpoint> {
    let port = Port::reserve()?;
    let at = port.address()?;
    let mut listener = Some(port.listen()?);
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        let mut modes = hub.mode.subscribe();
        loop {
            if *modes.borrow_and_update() == Mode::Refuse {
                listener = None;
                drop(modes.wait_for(|mode| *mode != Mode::Refuse).await);
            }
            if listener.is_none() {
                listener = port.listen().ok();
            }
            let Some(listening) = &listener else { return sleep(Duration::MAX).await };
            tokio::select! {
                accepted = listening.accept() => {
                    if let Ok((mapper, _)) = accepted {
                        connections.spawn(connect(device, mapper, Arc::clone(&hub)));
                    }
                }
                _ = modes.changed() => {}
                Some(_) = connections.join_next() => {}
            }
        }
    });
    Ok(Endpoint::Tcp(at))
}

async fn connect(device: SocketAddr, mapper: TcpStream, hub: Arc<Hub>) {
    let _opened = hub.opened();
    drop(mapper.set_nodelay(true));
    if let Ok(device) = TcpStream::connect(device).await {
        drop(device.set_nodelay(true));
        pump(mapper, device, &hub).await;
    }
}

/// Lets bytes through until one side ends or the line is to be cut.
pub(super) async fn pump(
    mapper: impl AsyncRead + AsyncWrite + Unpin,
    device: impl AsyncRead + AsyncWrite + Unpin,
    hub: &Hub,
) {
    let mut pump = Pump { mapper, device, hub, conversation: Conversation::default() };
    let cut = hub.cut();
    tokio::select! {
        _ = pump.run() => {}
        () = cut => {}
    }
}

struct Pump<'a, M, D> {
    mapper: M,
    device: D,
    hub: &'a Hub,
    conversation: Conversation,
}

impl<M: AsyncRead + AsyncWrite + Unpin, D: AsyncRead + AsyncWrite + Unpin> Pump<'_, M, D> {
    /// `Err` and `Ok` are both its end.
    async fn run(&mut self) -> io::Result<()> {
        let (mut request, mut answer) = (vec![0; CHUNK], vec![0; CHUNK]);
        loop {
            let (direction, chunk) = tokio::select! {
                n = self.mapper.read(&mut request) => (Direction::ToDevice, &request[..n?]),
                n = self.device.read(&mut answer) => (Direction::ToMapper, &answer[..n?]),
            };
            if chunk.is_empty() {
                return Ok(());
            }
            self.hub.thawed().await;
            let todo = self.hub.pass(&mut self.conversation, direction, chunk.to_vec());
            for act in todo {
                if self.act(act).await?.is_break() {
                    return Ok(());
                }
            }
        }
    }

    async fn act(&mut self, act: Do) -> io::Result<std::ops::ControlFlow<()>> {
        match act {
            Do::Wait(time) => self.wait(time).await?,
            Do::Send(Direction::ToDevice, bytes) => self.device.write_all(&bytes).await?,
            Do::Send(Direction::ToMapper, bytes) => {
                self.hub.answered();
                self.mapper.write_all(&bytes).await?;
            }
            Do::HangUp => {
                self.hang_up().await;
                return Ok(std::ops::ControlFlow::Break(()));
            }
        }
        Ok(std::ops::ControlFlow::Continue(()))
    }

    /// Requests that come while an answer is held back are passed on, and count as overlaps.
    async fn wait(&mut self, time: Duration) -> io::Result<()> {
        let over = sleep(time);
        tokio::pin!(over);
        let mut request = vec![0; CHUNK];
        loop {
            tokio::select! {
                () = &mut over => return Ok(()),
                n = self.mapper.read(&mut request) => {
                    let n = n?;
                    if n == 0 {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                    let chunk = request[..n].to_vec();
                    for act in self.hub.pass(&mut self.conversation, Direction::ToDevice, chunk) {
                        if let Do::Send(Direction::ToDevice, bytes) = act {
                            self.device.write_all(&bytes).await?;
                        }
                    }
                }
            }
        }
    }

    /// The mapper hears the end at once; the device finishes what it has in hand.
    async fn hang_up(&mut self) {
        drop(self.mapper.shutdown().await);
        let mut answer = [0; 64];
        drop(timeout(LAST_REQUEST, self.device.read(&mut answer)).await);
    }
}
