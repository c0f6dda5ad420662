//! A serial port, as bytes in and out.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use rustix::fs::{Mode, OFlags, open};
use rustix::termios::{
    ControlModes, OptionalActions, QueueSelector, SpecialCodeIndex, ioctl_tiocexcl, ioctl_tiocnxcl, tcflush,
    tcgetattr, tcsetattr,
};
use tokio::io::unix::AsyncFd;

/// Shortest pause between frames from 19200 bit/s on (MODBUS over Serial Line V1.02, §2.5.1.1).
const SHORTEST_PAUSE: Duration = Duration::from_micros(1750);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Parity {
    None,
    Even,
    Odd,
}

impl Parity {
    /// As settings name it.
    pub(crate) fn key(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Even => "even",
            Self::Odd => "odd",
        }
    }
}

/// How bits lie on the line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Speed {
    pub(crate) baud: u32,
    pub(crate) parity: Parity,
    pub(crate) data_bits: u8,
    pub(crate) stop_bits: u8,
}

impl Speed {
    /// The silence that ends a frame: three and a half characters of at most 11 bits.
    pub(crate) fn pause(self) -> Duration {
        Duration::from_micros(38_500_000 / u64::from(self.baud.max(1))).max(SHORTEST_PAUSE)
    }

    fn modes(self, mut modes: ControlModes) -> ControlModes {
        modes.remove(
            ControlModes::CSIZE
                | ControlModes::PARENB
                | ControlModes::PARODD
                | ControlModes::CSTOPB
                // Else a request waits in the kernel for a line that nobody drives, however late.
                | ControlModes::CRTSCTS,
        );
        modes.insert(ControlModes::CREAD | ControlModes::CLOCAL);
        modes.insert(if self.data_bits == 7 { ControlModes::CS7 } else { ControlModes::CS8 });
        modes.set(ControlModes::CSTOPB, self.stop_bits == 2);
        match self.parity {
            Parity::None => {}
            Parity::Even => modes.insert(ControlModes::PARENB),
            Parity::Odd => modes.insert(ControlModes::PARENB | ControlModes::PARODD),
        }
        modes
    }
}

/// An open port. It is ours alone: two masters on one line garble each other.
#[derive(Debug)]
pub(crate) struct Serial(AsyncFd<OwnedFd>);

impl Serial {
    #[expect(unsafe_code, reason = "tokio wants the promise that the descriptor stays open")]
    pub(crate) fn open(path: &Path, speed: Speed) -> io::Result<Self> {
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let port = open(path, flags, Mode::empty())?;
        let mut termios = tcgetattr(&port)?;
        termios.make_raw();
        termios.set_speed(speed.baud)?;
        termios.control_modes = speed.modes(termios.control_modes);
        termios.special_codes[SpecialCodeIndex::VMIN] = 1;
        termios.special_codes[SpecialCodeIndex::VTIME] = 0;
        tcsetattr(&port, OptionalActions::Now, &termios)?;
        ioctl_tiocexcl(&port)?;
        tcflush(&port, QueueSelector::IOFlush)?;
        // SAFETY: `OwnedFd` keeps its one descriptor open until it is dropped, and nobody takes it out.
        Ok(Self(unsafe { AsyncFd::register(port) }?))
    }

    pub(crate) async fn read(&self, bytes: &mut [u8]) -> io::Result<usize> {
        loop {
            let mut ready = self.0.readable().await?;
            if let Ok(read) = ready.try_io(|port| Ok(rustix::io::read(port, &mut *bytes)?)) {
                return read;
            }
        }
    }

    pub(crate) async fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let mut ready = self.0.writable().await?;
            if let Ok(written) = ready.try_io(|port| Ok(rustix::io::write(port, bytes)?)) {
                bytes = &bytes[written?..];
            }
        }
        Ok(())
    }

    /// Forgets what came unasked.
    pub(crate) fn discard(&self) -> io::Result<()> {
        Ok(tcflush(self.0.get_ref(), QueueSelector::IFlush)?)
    }

    /// The same, and what has not left yet.
    pub(crate) fn give_up(&self) -> io::Result<()> {
        Ok(tcflush(self.0.get_ref(), QueueSelector::IOFlush)?)
    }
}

/// A pseudo-terminal outlives its users, and with it the lock. What has not left by now never should.
impl Drop for Serial {
    fn drop(&mut self) {
        let _flushed = self.give_up();
        let _gone_anyway = ioctl_tiocnxcl(self.0.get_ref());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_apart_by_three_and_a_half_characters() {
        let pause =
            |baud| Speed { baud, parity: Parity::Even, data_bits: 8, stop_bits: 1 }.pause().as_micros();
        assert_eq!([pause(1200), pause(9600), pause(115_200)], [32083, 4010, 1750]);
    }

    #[test]
    fn no_line_is_waited_for_before_sending() {
        let speed = Speed { baud: 9600, parity: Parity::None, data_bits: 8, stop_bits: 1 };
        let before = ControlModes::CRTSCTS | ControlModes::PARENB;
        assert!(!speed.modes(before).intersects(before));
    }
}
