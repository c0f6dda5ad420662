//! A client of the API that says what it wants, byte by byte, and keeps its connection.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::Value;

/// Far longer than any answer takes.
const PATIENCE: Duration = Duration::from_secs(30);

/// Somebody's certificate and key.
pub(crate) struct Card {
    pub(crate) certificate: CertificateDer<'static>,
    pub(crate) key: PrivateKeyDer<'static>,
}

impl Card {
    /// What `kubebus user add` and `kubebus mqtt certificate` wrote.
    #[track_caller]
    pub(crate) fn read(dir: &Path, who: &str) -> Self {
        let file = |ending: &str| dir.join(format!("{who}.{ending}"));
        Self {
            certificate: CertificateDer::from_pem_file(file("pem")).unwrap(),
            key: PrivateKeyDer::from_pem_file(file("key")).unwrap(),
        }
    }
}

/// Where a node's API is, and how it is known.
#[derive(Clone)]
pub(crate) struct Place {
    pub(crate) address: SocketAddr,
    pub(crate) name: &'static str,
    pub(crate) authority: CertificateDer<'static>,
}

/// One connection.
pub(crate) struct Client(BufReader<Tls>);

pub(crate) type Tls = StreamOwned<ClientConnection, TcpStream>;

/// A status, and the body if it is JSON.
#[derive(Debug, PartialEq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Value,
}

impl Place {
    pub(crate) fn client(&self, card: Option<&Card>) -> Client {
        Client(BufReader::new(self.connect(card)))
    }

    /// Shakes hands; whether the server believed the card shows at the first answer (TLS 1.3).
    pub(crate) fn connect(&self, card: Option<&Card>) -> Tls {
        let mut roots = RootCertStore::empty();
        roots.add(self.authority.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(roots);
        let config = match card {
            None => config.with_no_client_auth(),
            Some(Card { certificate, key }) => {
                config.with_client_auth_cert(vec![certificate.clone()], key.clone_key()).unwrap()
            }
        };
        let name = ServerName::try_from(self.name).unwrap();
        let connection = ClientConnection::new(Arc::new(config), name).unwrap();
        let socket = TcpStream::connect(self.address).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        StreamOwned::new(connection, socket)
    }
}

impl Answer {
    /// What a browser would send back, if it were told to keep it as a session's must be.
    #[track_caller]
    pub(crate) fn cookie(&self) -> &str {
        let line = field(&self.head, "set-cookie").unwrap();
        let all = ["; HttpOnly", "; SameSite=Strict", "; Secure", "; Path=/"];
        assert!(line.starts_with("__Host-") && all.iter().all(|part| line.contains(part)), "{line}");
        line.split(';').next().unwrap()
    }
}

fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let fields = head.lines().filter_map(|line| line.split_once(": "));
    fields.filter(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value).next()
}

impl Client {
    /// `what` is a method and a path.
    #[track_caller]
    pub(crate) fn ask(&mut self, what: &str, body: &str) -> Answer {
        self.try_ask(what, "", body).unwrap_or_else(|error| panic!("{what}: {error}"))
    }

    /// A body that is no JSON document, or several.
    #[track_caller]
    pub(crate) fn text(&mut self, what: &str) -> String {
        let text = format!("{what} HTTP/1.1\r\nHost: here\r\n\r\n");
        self.0.get_mut().write_all(text.as_bytes()).unwrap();
        self.0.get_mut().flush().unwrap();
        let (_, body) = read_whole(&mut self.0).unwrap();
        String::from_utf8(body).unwrap()
    }

    /// With further lines of the head, each with its end.
    pub(crate) fn try_ask(&mut self, what: &str, head: &str, body: &str) -> io::Result<Answer> {
        let length = body.len();
        let text = format!("{what} HTTP/1.1\r\nHost: here\r\n{head}Content-Length: {length}\r\n\r\n{body}");
        self.0.get_mut().write_all(text.as_bytes())?;
        self.0.get_mut().flush()?;
        read(&mut self.0)
    }

    /// Waits until the server ends the connection; what it said before, if anything.
    pub(crate) fn ends(&mut self) -> io::Result<()> {
        match self.0.read(&mut [0]) {
            Ok(0) => Ok(()),
            Ok(_) => Err(io::Error::other("it goes on")),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(error),
            Err(_) => Ok(()),
        }
    }
}

pub(crate) fn read(stream: &mut impl BufRead) -> io::Result<Answer> {
    let (head, body) = read_whole(stream)?;
    let status =
        head.split(' ').nth(1).and_then(|code| code.parse().ok()).ok_or(io::ErrorKind::InvalidData)?;
    Ok(Answer { status, head, body: serde_json::from_slice(&body).unwrap_or_default() })
}

fn read_whole(stream: &mut impl BufRead) -> io::Result<(String, Vec<u8>)> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if stream.read_line(&mut head)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    let body = match field(&head, "content-length") {
        Some(length) => exactly(stream, length.parse().map_err(io::Error::other)?)?,
        None if head.split(' ').nth(1) == Some("204") => Vec::new(),
        None => chunks(stream)?,
    };
    Ok((head, body))
}

fn exactly(stream: &mut impl BufRead, length: usize) -> io::Result<Vec<u8>> {
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    Ok(body)
}

/// RFC 9112 §7.1.
fn chunks(stream: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let mut size = String::new();
        stream.read_line(&mut size)?;
        let size = usize::from_str_radix(size.trim(), 16).map_err(io::Error::other)?;
        body.extend(exactly(stream, size)?);
        exactly(stream, 2)?;
        if size == 0 {
            return Ok(body);
        }
    }
}
