//! A backup as bytes, in both directions.
//!
//! ```text
//! kubebus cloud backup 1\n                    what it is, and the format's version
//! length u32, Header                          lengths are big-endian, Header and Row are CBOR
//! length u32, Row        once a row           in the order of keys
//! 0 u32
//! SHA-256 of all of the above, 32 bytes
//! ```
//! The sum is no signature: it finds a torn, rotten or edited file, not a forged one.

use std::io::{self, ErrorKind, Read};

use bus::{Identity, UnixMillis};
use bytes::Bytes;
use metadata::{Key, Revision, Row};
use minicbor::bytes::{ByteSlice, ByteVec};
use minicbor::{Decode, Encode};
use sha2::{Digest, Sha256};
use thiserror::Error;

const MAGIC: &str = "kubebus cloud backup ";
const VERSION: u32 = 1;

/// The first line's bound: any version's number fits.
const MAX_FIRST_LINE: u64 = 40;

/// The first room for a record, whatever length it claims: what is more is taken as it comes.
const FIRST_ROOM: u64 = 4096;

/// About this much is encoded at once.
const CHUNK: usize = 64 * 1024;

/// Whose backup this is, of when, and the keys without which its edges would not know it again.
#[derive(Clone, PartialEq, Eq)]
pub struct Header {
    pub identity: Identity,
    pub revision: Revision,
    pub epoch: u64,
    pub taken: UnixMillis,
    /// `ca/ca.pem`: key and certificate of the authority.
    pub authority: Vec<u8>,
    /// The cloud's own key, PKCS #8 in DER.
    pub key: Vec<u8>,
}

impl std::fmt::Debug for Header {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Header")
            .field("identity", &self.identity)
            .field("revision", &self.revision)
            .field("epoch", &self.epoch)
            .field("taken", &self.taken)
            .finish_non_exhaustive()
    }
}

/// Why bytes are no backup that can be trusted.
#[derive(Debug, Error)]
pub enum ReadError {
    #[error("this is no backup of a kubebus cloud")]
    Foreign,
    #[error(
        "this backup has format {found} and this kubebus reads format {VERSION}: use the version that made it, or a newer one"
    )]
    Version { found: u32 },
    #[error("this backup is damaged ({found}): nothing of it is used; take another one")]
    Damaged { found: &'static str },
    #[error("cannot read the backup")]
    Io(#[source] io::Error),
}

#[derive(Encode, Decode)]
struct WireHeader {
    #[n(0)]
    identity: String,
    #[n(1)]
    revision: Revision,
    #[n(2)]
    epoch: u64,
    #[n(3)]
    taken_ms: u64,
    #[n(4)]
    authority: ByteVec,
    #[n(5)]
    key: ByteVec,
}

#[derive(Encode, Decode)]
struct WireRow<'a> {
    #[b(0)]
    key: &'a str,
    #[n(1)]
    revision: Revision,
    /// None: deleted, and not forgotten yet.
    #[b(2)]
    value: Option<&'a ByteSlice>,
}

/// Gives a backup piece by piece: what is in memory of it at once is one piece and the rows, which share their bytes
/// with the keyspace that they came from.
#[derive(Debug)]
pub struct Encoder {
    head: Option<Vec<u8>>,
    rows: std::vec::IntoIter<Row>,
    sum: Option<Sha256>,
}

impl Encoder {
    pub fn new(header: &Header, rows: Vec<Row>) -> Self {
        let Header { identity, revision, epoch, taken, authority, key } = header;
        let wire = WireHeader {
            identity: identity.to_string(),
            revision: *revision,
            epoch: *epoch,
            taken_ms: taken.0,
            authority: authority.clone().into(),
            key: key.clone().into(),
        };
        let mut head = format!("{MAGIC}{VERSION}\n").into_bytes();
        put(&mut head, &wire);
        Self { head: Some(head), rows: rows.into_iter(), sum: Some(Sha256::new()) }
    }
}

impl Iterator for Encoder {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        let mut sum = self.sum.take()?;
        let mut piece = self.head.take().unwrap_or_default();
        while piece.len() < CHUNK {
            let Some((key, revision, value)) = self.rows.next() else {
                piece.extend_from_slice(&[0; 4]);
                sum.update(&piece);
                piece.extend_from_slice(&sum.finalize());
                return Some(piece.into());
            };
            let value = value.as_deref().map(<&ByteSlice>::from);
            put(&mut piece, &WireRow { key: key.as_str(), revision, value });
        }
        sum.update(&piece);
        self.sum = Some(sum);
        Some(piece.into())
    }
}

#[expect(clippy::expect_used, reason = "a value is some MiB at most, and a Vec takes every byte")]
fn put(piece: &mut Vec<u8>, record: &impl Encode<()>) {
    let record = minicbor::to_vec(record).expect("a Vec takes every byte");
    let len = u32::try_from(record.len()).expect("shorter than 4 GiB");
    piece.extend_from_slice(&len.to_be_bytes());
    piece.extend_from_slice(&record);
}

/// Reads a backup to its end and hands its rows to `each`. They count only if this succeeds: whether all is as it was
/// written shows at the end.
pub fn read(input: impl Read, mut each: impl FnMut(Row)) -> Result<Header, ReadError> {
    let mut input = Summed { input, sum: Sha256::new() };
    input.first_line()?;
    let Some(first) = input.record()? else { return damaged("it has no header") };
    let header = header(&first)?;
    while let Some(record) = input.record()? {
        each(row(&record)?);
    }
    input.end()?;
    Ok(header)
}

fn damaged<T>(found: &'static str) -> Result<T, ReadError> {
    Err(ReadError::Damaged { found })
}

fn header(record: &[u8]) -> Result<Header, ReadError> {
    let Ok(wire) = minicbor::decode::<WireHeader>(record) else { return damaged("its header is no header") };
    let WireHeader { identity, revision, epoch, taken_ms, authority, key } = wire;
    let Ok(identity) = identity.parse() else { return damaged("it names no cloud") };
    let taken = UnixMillis(taken_ms);
    Ok(Header { identity, revision, epoch, taken, authority: authority.into(), key: key.into() })
}

fn row(record: &[u8]) -> Result<Row, ReadError> {
    let Ok(wire) = minicbor::decode::<WireRow<'_>>(record) else { return damaged("a row is no row") };
    let WireRow { key, revision, value } = wire;
    let Ok(key) = Key::new(key) else { return damaged("a name is no key") };
    Ok((key, revision, value.map(|value| Bytes::copy_from_slice(value))))
}

/// Adds up what is read.
struct Summed<R> {
    input: R,
    sum: Sha256,
}

impl<R: Read> Summed<R> {
    fn first_line(&mut self) -> Result<(), ReadError> {
        let mut line = String::new();
        for _ in 0..MAX_FIRST_LINE {
            match self.array::<1>() {
                Ok([b'\n']) => break,
                Ok([byte]) => line.push(char::from(byte)),
                Err(ReadError::Io(error)) => return Err(ReadError::Io(error)),
                Err(_) => return Err(ReadError::Foreign),
            }
        }
        let version = line.strip_prefix(MAGIC).and_then(|version| version.parse().ok());
        match version {
            None => Err(ReadError::Foreign),
            Some(VERSION) => Ok(()),
            Some(found) => Err(ReadError::Version { found }),
        }
    }

    fn record(&mut self) -> Result<Option<Vec<u8>>, ReadError> {
        let len = u64::from(u32::from_be_bytes(self.array()?));
        if len == 0 {
            return Ok(None);
        }
        let mut record = Vec::with_capacity(usize::try_from(len.min(FIRST_ROOM)).unwrap_or_default());
        let got = self.input.by_ref().take(len).read_to_end(&mut record).map_err(ReadError::Io)?;
        self.sum.update(&record);
        if (got as u64) < len { damaged("it ends too early") } else { Ok(Some(record)) }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], ReadError> {
        let mut bytes = [0; N];
        match self.input.read_exact(&mut bytes) {
            Ok(()) => {
                self.sum.update(bytes);
                Ok(bytes)
            }
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => damaged("it ends too early"),
            Err(error) => Err(ReadError::Io(error)),
        }
    }

    fn end(mut self) -> Result<(), ReadError> {
        let expected: [u8; 32] = std::mem::take(&mut self.sum).finalize().into();
        if self.array::<32>()? != expected {
            return damaged("its checksum does not match");
        }
        match self.input.read(&mut [0]) {
            Ok(0) => Ok(()),
            Ok(_) => damaged("something follows its end"),
            Err(error) => Err(ReadError::Io(error)),
        }
    }
}

#[cfg(test)]
mod tests;
