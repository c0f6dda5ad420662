//! A server that only replays: what it is asked for the first time it has from the node's admin socket, and from then on
//! from memory, byte by byte.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread;

use anyhow::{Context, Result};

/// What an answer depends on: its path with the query, and what its asker accepts.
type Asked = (String, String);

type Kept = Arc<Mutex<BTreeMap<Asked, Arc<[u8]>>>>;

#[derive(Debug)]
pub(super) struct Replay {
    address: SocketAddr,
}

impl Replay {
    /// Its threads end with the process.
    pub(super) fn start(node: PathBuf) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("the replaying server")?;
        let address = listener.local_addr().context("the replaying server")?;
        let kept = Kept::default();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (kept, node) = (Arc::clone(&kept), node.clone());
                // A client that hangs up ends its connection alone.
                thread::spawn(move || serve(stream, &kept, &node));
            }
        });
        Ok(Self { address })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }
}

fn serve(stream: TcpStream, kept: &Kept, node: &Path) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut writer = stream;
    while let Some(asked) = read_request(&mut reader)? {
        let known = kept.lock().map_err(|_| anyhow::anyhow!("a thread panicked"))?.get(&asked).cloned();
        let answer = match known {
            Some(answer) => answer,
            None => {
                let answer: Arc<[u8]> = fetch(&asked, node)?.into();
                kept.lock()
                    .map_err(|_| anyhow::anyhow!("a thread panicked"))?
                    .insert(asked, Arc::clone(&answer));
                answer
            }
        };
        writer.write_all(&answer)?;
    }
    Ok(())
}

/// `None`: the client has no more.
fn read_request(reader: &mut impl BufRead) -> Result<Option<Asked>> {
    let (mut first, mut accept) = (String::new(), String::new());
    if reader.read_line(&mut first)? == 0 {
        return Ok(None);
    }
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? <= 2 {
            let path = first.split(' ').nth(1).context("a path")?.to_owned();
            return Ok(Some((path, accept)));
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("accept:") {
            // Media types have no upper case that matters but in g=, v= and as=.
            accept = line[line.len() - value.len()..].trim().to_owned();
        }
    }
}

/// The whole answer with a length, whatever the node said it in.
fn fetch((path, accept): &Asked, node: &Path) -> Result<Vec<u8>> {
    let mut socket = UnixStream::connect(node).context("the admin socket")?;
    write!(socket, "GET {path} HTTP/1.1\r\nhost: node\r\naccept: {accept}\r\nconnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer)?;
    let at = answer.windows(4).position(|part| part == b"\r\n\r\n").context("a node's answer")?;
    let head = String::from_utf8_lossy(&answer[..at]);
    let field = |name: &str| {
        let mut fields = head.lines().filter_map(|line| line.split_once(": "));
        fields.find_map(|(known, value)| known.eq_ignore_ascii_case(name).then_some(value))
    };
    let body = &answer[at + 4..];
    let body = if field("transfer-encoding") == Some("chunked") { dechunk(body)? } else { body.to_vec() };
    let status = head.lines().next().context("a status")?;
    let kind = field("content-type").unwrap_or("application/json");
    let mut whole =
        format!("{status}\r\ncontent-type: {kind}\r\ncontent-length: {}\r\n\r\n", body.len()).into_bytes();
    whole.extend_from_slice(&body);
    Ok(whole)
}

fn dechunk(mut body: &[u8]) -> Result<Vec<u8>> {
    let mut whole = Vec::new();
    loop {
        let end = body.windows(2).position(|part| part == b"\r\n").context("a chunk's length")?;
        let length = usize::from_str_radix(std::str::from_utf8(&body[..end])?.trim(), 16)?;
        if length == 0 {
            return Ok(whole);
        }
        whole.extend_from_slice(body.get(end + 2..end + 2 + length).context("a whole chunk")?);
        body = body.get(end + 4 + length..).context("a chunk's end")?;
    }
}
