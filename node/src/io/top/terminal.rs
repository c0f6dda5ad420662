//! The terminal: raw while a [`Screen`] lives, and as it was after it.

use std::io::{self, Read, Write};

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use tokio::sync::mpsc;

use super::frame::{Line, Look};

/// Other screen on, cursor off; and back.
const ENTER: &str = "\x1b[?1049h\x1b[?25l";
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";

/// Where people can do without a size: the smallest that everybody has.
const SMALLEST: (usize, usize) = (80, 24);

/// Keys that wait: nobody types faster than a frame is drawn, and a held key may lose a step.
const KEYS: usize = 16;

#[derive(Debug)]
pub(super) struct Screen {
    before: Termios,
}

impl Screen {
    pub(super) fn open() -> io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        let screen = Self { before };
        tcsetattr(io::stdin(), OptionalActions::Now, &raw)?;
        write(ENTER)?;
        Ok(screen)
    }

    /// Columns and rows.
    pub(super) fn size(&self) -> (usize, usize) {
        match tcgetwinsize(io::stdout()) {
            Ok(size) if size.ws_row > 0 => (usize::from(size.ws_col), usize::from(size.ws_row)),
            Ok(_) | Err(_) => SMALLEST,
        }
    }

    /// In one write, so that nothing flickers.
    pub(super) fn show(&mut self, lines: &[Line]) -> io::Result<()> {
        let mut text = "\x1b[H".to_owned();
        for (at, Line { text: line, look }) in lines.iter().enumerate() {
            let look = match look {
                Look::Plain => "",
                Look::Head => "\x1b[1m",
                Look::Ill => "\x1b[31m",
            };
            let break_before = if at == 0 { "" } else { "\r\n" };
            // What nodes say of themselves must not steer the terminal.
            let line: String = line.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
            text.push_str(&format!("{break_before}{look}{line}\x1b[0m\x1b[K"));
        }
        text.push_str("\x1b[J");
        write(&text)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // There is nobody to tell.
        let _ = write(LEAVE);
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.before);
    }
}

fn write(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Key {
    Quit,
    Sort,
    Up,
    Down,
    PageUp,
    PageDown,
}

impl Key {
    /// From what a terminal sends for it.
    fn of(bytes: &[u8]) -> Option<Self> {
        Some(match bytes {
            b"q" | b"Q" | b"\x1b" | [3 | 4] => Self::Quit,
            b"s" | b"S" => Self::Sort,
            b"\x1b[A" | b"\x1bOA" | b"k" => Self::Up,
            b"\x1b[B" | b"\x1bOB" | b"j" => Self::Down,
            b"\x1b[5~" => Self::PageUp,
            b"\x1b[6~" | b" " => Self::PageDown,
            _ => return None,
        })
    }
}

/// Keys as they are pressed. The thread that reads them ends with the process, or with the terminal.
pub(super) fn keys() -> mpsc::Receiver<Key> {
    let (pressed, keys) = mpsc::channel(KEYS);
    std::thread::spawn(move || {
        let mut bytes = [0; 16];
        while let Ok(len @ 1..) = io::stdin().read(&mut bytes) {
            if let Some(key) = Key::of(&bytes[..len])
                && let Err(mpsc::error::TrySendError::Closed(_)) = pressed.try_send(key)
            {
                return;
            }
        }
    });
    keys
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_what_terminals_send() {
        let keys = [&b"q"[..], b"\x03", b"s", b"\x1b[A", b"\x1bOB", b"\x1b[6~", b"x"].map(Key::of);
        let expected = [
            Some(Key::Quit),
            Some(Key::Quit),
            Some(Key::Sort),
            Some(Key::Up),
            Some(Key::Down),
            Some(Key::PageDown),
            None,
        ];
        assert_eq!(keys, expected);
    }
}
