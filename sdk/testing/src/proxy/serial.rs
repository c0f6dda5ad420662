//! Serial lines: the mapper gets one end of a pair of pseudo-terminals.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustix::fs::OFlags;
use rustix::pty::OpenptFlags;
use rustix::termios::OptionalActions;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::JoinSet;

use super::Hub;
use super::stream::pump;
use crate::fixture::Endpoint;

/// How long a cut line is dead.
const PAUSE: Duration = Duration::from_millis(50);

/// Both ends of a line that is there for good: a cut is a moment in which what is under way gets lost.
pub(super) fn serve(device: &Path, hub: Arc<Hub>, tasks: &mut JoinSet<()>) -> io::Result<Endpoint> {
    let (mut ours, theirs, path) = pair()?;
    let mut device = Terminal::open(device)?;
    tasks.spawn(async move {
        let _kept_open = theirs; // else the line hangs up whenever the mapper closes it
        loop {
            let _opened = hub.opened();
            pump(&mut ours, &mut device, &hub).await;
            tokio::time::sleep(PAUSE).await;
        }
    });
    Ok(Endpoint::Serial(path))
}

/// Our end, the other end, and the other end's path.
fn pair() -> io::Result<(Terminal, OwnedFd, PathBuf)> {
    let ours = rustix::pty::openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    rustix::pty::grantpt(&ours)?;
    rustix::pty::unlockpt(&ours)?;
    let path = PathBuf::from(rustix::pty::ptsname(&ours, Vec::new())?.to_string_lossy().into_owned());
    let theirs = open(&path)?;
    raw(&theirs)?;
    Ok((Terminal::new(ours)?, theirs.into(), path))
}

fn open(path: &Path) -> io::Result<File> {
    let flags = (OFlags::NOCTTY | OFlags::NONBLOCK).bits();
    OpenOptions::new().read(true).write(true).custom_flags(flags.cast_signed()).open(path)
}

/// Bytes as they are: no echo, no lines, no signals.
fn raw(terminal: &impl AsFd) -> io::Result<()> {
    let mut settings = rustix::termios::tcgetattr(terminal)?;
    settings.make_raw();
    Ok(rustix::termios::tcsetattr(terminal, OptionalActions::Now, &settings)?)
}

/// A terminal without a blocking call.
struct Terminal(AsyncFd<OwnedFd>);

impl Terminal {
    fn open(path: &Path) -> io::Result<Self> {
        let file = open(path)?;
        raw(&file)?;
        Self::new(file.into())
    }

    fn new(fd: OwnedFd) -> io::Result<Self> {
        let flags = rustix::fs::fcntl_getfl(&fd)?;
        rustix::fs::fcntl_setfl(&fd, flags | OFlags::NONBLOCK)?;
        #[expect(
            deprecated,
            reason = "an owned descriptor is always the same open file, which `register` asks one to promise"
        )]
        let terminal = AsyncFd::new(fd)?;
        Ok(Self(terminal))
    }
}

impl AsyncRead for Terminal {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            let mut guard = ready!(self.0.poll_read_ready(cx))?;
            let read = guard.try_io(|fd| Ok(rustix::io::read(fd.get_ref(), buf.initialize_unfilled())?));
            if let Ok(read) = read {
                return Poll::Ready(read.map(|n| buf.advance(n)));
            }
        }
    }
}

impl AsyncWrite for Terminal {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            let mut guard = ready!(self.0.poll_write_ready(cx))?;
            if let Ok(written) = guard.try_io(|fd| Ok(rustix::io::write(fd.get_ref(), bytes)?)) {
                return Poll::Ready(written);
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
