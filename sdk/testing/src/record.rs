//! What passed over a line, as a text file, and a device that answers from it.
//!
//! One line per chunk: seconds since the start, `>` to the device or `<` to the mapper, bytes in hex.
//!
//! ```text
//! 0.001250 > 000100000006010300000002
//! 0.003471 < 00010000000701030400010002
//! ```

use std::fmt::{self, Write as _};
use std::io;
use std::str::FromStr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::fixture::Endpoint;
use crate::proxy::Direction;

/// Chunks in one recording; later ones are not recorded.
const MAX_ENTRIES: usize = 100_000;

/// One chunk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Since the proxy's start.
    pub after: Duration,
    pub direction: Direction,
    pub bytes: Vec<u8>,
}

/// See the module's page. Text by `to_string` and `parse`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Recording(Vec<Entry>);

impl Recording {
    pub fn entries(&self) -> &[Entry] {
        &self.0
    }

    pub(crate) fn push(&mut self, entry: Entry) {
        if self.0.len() < MAX_ENTRIES {
            self.0.push(entry);
        }
    }
}

impl fmt::Display for Recording {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Entry { after, direction, bytes } in &self.0 {
            let arrow = if *direction == Direction::ToDevice { '>' } else { '<' };
            let hex = bytes.iter().fold(String::new(), |mut hex, byte| {
                let _ = write!(hex, "{byte:02x}"); // a String takes everything
                hex
            });
            writeln!(f, "{}.{:06} {arrow} {hex}", after.as_secs(), after.subsec_micros())?;
        }
        Ok(())
    }
}

impl FromStr for Recording {
    type Err = String;

    /// Errors name the line.
    fn from_str(text: &str) -> Result<Self, String> {
        let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
        let entries = lines.map(|(i, line)| {
            entry(line).ok_or_else(|| format!("line {}: it looks like '0.001250 > 0102ff'", i + 1))
        });
        Ok(Self(entries.collect::<Result<_, _>>()?))
    }
}

fn entry(line: &str) -> Option<Entry> {
    let mut words = line.split_whitespace();
    let after = Duration::try_from_secs_f64(words.next()?.parse().ok()?).ok()?;
    let direction = match words.next()? {
        ">" => Direction::ToDevice,
        "<" => Direction::ToMapper,
        _ => return None,
    };
    let bytes = bytes(words.next()?)?;
    words.next().is_none().then_some(Entry { after, direction, bytes })
}

fn bytes(hex: &str) -> Option<Vec<u8>> {
    let pair = |i| u8::from_str_radix(hex.get(i..i + 2)?, 16).ok();
    if hex.len() % 2 == 1 { None } else { (0..hex.len()).step_by(2).map(pair).collect() }
}

/// Plays the device's side of a recording over TCP, once, to the first who connects.
#[derive(Debug)]
pub struct Replay {
    at: Endpoint,
    end: watch::Receiver<Option<Result<(), String>>>,
    _tasks: JoinSet<()>,
}

impl Replay {
    pub async fn start(recording: Recording) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let at = Endpoint::Tcp(listener.local_addr()?);
        let (told, end) = watch::channel(None);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let played = match listener.accept().await {
                Ok((mut mapper, _)) => play(&recording, &mut mapper).await,
                Err(error) => Err(error.to_string()),
            };
            told.send_replace(Some(played));
        });
        Ok(Self { at, end, _tasks: tasks })
    }

    pub fn at(&self) -> &Endpoint {
        &self.at
    }

    /// Waits until the whole recording was played; an error says what the mapper asked instead.
    pub async fn end(mut self) -> Result<(), String> {
        let end =
            self.end.wait_for(Option::is_some).await.map_err(|_| "the replay has crashed".to_owned())?;
        end.clone().unwrap_or(Ok(()))
    }
}

async fn play(recording: &Recording, mapper: &mut TcpStream) -> Result<(), String> {
    for (i, Entry { direction, bytes, .. }) in recording.0.iter().enumerate() {
        match direction {
            Direction::ToMapper => mapper.write_all(bytes).await.map_err(|e| e.to_string())?,
            Direction::ToDevice => {
                let mut asked = vec![0; bytes.len()];
                mapper.read_exact(&mut asked).await.map_err(|e| format!("line {}: {e}", i + 1))?;
                if asked != *bytes {
                    return Err(format!("line {}: the mapper asked {asked:02x?}", i + 1));
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recording_is_a_text_that_reads_back() {
        let text = "0.001250 > 0001ff\n12.000007 < \n".replace("< \n", "< 00\n");
        let recording: Recording = text.parse().unwrap();
        let first = Entry {
            after: Duration::from_micros(1250),
            direction: Direction::ToDevice,
            bytes: vec![0, 1, 255],
        };
        assert_eq!(recording.entries()[0], first);
        assert_eq!(recording.to_string(), text);
        for bad in ["x > 00", "1 = 00", "1 > 0", "1 > 0g", "1 > 00 00", "-1 > 00", "1 > äö"] {
            assert!(bad.parse::<Recording>().unwrap_err().starts_with("line 1"), "{bad}");
        }
    }
}
