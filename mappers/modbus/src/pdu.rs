//! What is asked and what is answered: protocol data units (MODBUS Application Protocol Specification V1.1b3, §4 and §6).

/// Longest protocol data unit in bytes (§4.1).
pub(crate) const MAX_PDU: usize = 253;

/// Most registers and most bits that one request may ask for: the specification allows 2,000 bits, but a run of 125 is
/// as far as the mapper's spans go.
pub(crate) const LONGEST_RUN: u16 = 125;

/// Most registers that one request may write (§6.12).
pub(crate) const MOST_WRITTEN: u16 = 123;

/// Of an answer that is an exception (§7).
const EXCEPTION: u8 = 0x80;
const READ_DEVICE_IDENTIFICATION: [u8; 4] = [0x2b, 0x0e, 0x01, 0x00];

/// The four tables of a device (§4.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Table {
    Coil,
    Discrete,
    Holding,
    Input,
}

impl Table {
    pub(crate) const ALL: [Self; 4] = [Self::Coil, Self::Discrete, Self::Holding, Self::Input];

    /// The function that reads it.
    pub(crate) fn function(self) -> u8 {
        match self {
            Self::Coil => 1,
            Self::Discrete => 2,
            Self::Holding => 3,
            Self::Input => 4,
        }
    }

    pub(crate) fn has_bits(self) -> bool {
        matches!(self, Self::Coil | Self::Discrete)
    }

    /// Its key in an address.
    pub(crate) fn key(self) -> &'static str {
        match self {
            Self::Coil => "coil",
            Self::Discrete => "discrete",
            Self::Holding => "holding",
            Self::Input => "input",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Request {
    Read {
        table: Table,
        start: u16,
        count: u16,
    },
    WriteCoil {
        at: u16,
        on: bool,
    },
    WriteRegister {
        at: u16,
        word: u16,
    },
    WriteCoils {
        start: u16,
        bits: Vec<bool>,
    },
    WriteRegisters {
        start: u16,
        words: Vec<u16>,
    },
    /// Function 8, sub-function 0: the device gives the number back (§6.8). It changes nothing.
    Echo(u16),
    /// Function 43/14: what the device says it is (§6.21).
    Identify,
}

/// What a device answers to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// One word a register; a bit is 0 or 1.
    Words(Vec<u16>),
    /// The write is done, or the number came back.
    Done,
    /// Vendor, product, version, as far as it says.
    Identity(Vec<String>),
    Refused(Exception),
}

/// Why a device, or the gateway before it, refuses (§7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Exception(pub(crate) u8);

impl Exception {
    pub(crate) const FUNCTION: Self = Self(1);
    pub(crate) const ADDRESS: Self = Self(2);
    pub(crate) const VALUE: Self = Self(3);
    pub(crate) const ACKNOWLEDGE: Self = Self(5);
    pub(crate) const BUSY: Self = Self(6);
    pub(crate) const NO_PATH: Self = Self(10);
    pub(crate) const NO_ANSWER: Self = Self(11);
}

impl std::fmt::Display for Exception {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = match self.0 {
            1 => "illegal function",
            2 => "illegal data address",
            3 => "illegal data value",
            4 => "server device failure",
            5 => "acknowledge: it takes long",
            6 => "server device busy",
            8 => "memory parity error",
            10 => "gateway path unavailable",
            11 => "gateway target device failed to respond",
            _ => "unknown exception",
        };
        write!(f, "{name} (exception {})", self.0)
    }
}

impl Request {
    pub(crate) fn function(&self) -> u8 {
        match self {
            Self::Read { table, .. } => table.function(),
            Self::WriteCoil { .. } => 5,
            Self::WriteRegister { .. } => 6,
            Self::Echo(_) => 8,
            Self::WriteCoils { .. } => 15,
            Self::WriteRegisters { .. } => 16,
            Self::Identify => 43,
        }
    }

    /// Its protocol data unit.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let pair = |a: u16, b: u16| [a.to_be_bytes(), b.to_be_bytes()].concat();
        let (head, data) = match self {
            Self::Read { start, count, .. } => (pair(*start, *count), vec![]),
            Self::WriteCoil { at, on } => (pair(*at, coil(*on)), vec![]),
            Self::WriteRegister { at, word } => (pair(*at, *word), vec![]),
            Self::Echo(number) => (pair(0, *number), vec![]),
            Self::WriteCoils { start, bits } => (pair(*start, count(bits)), counted(packed(bits))),
            Self::WriteRegisters { start, words } => {
                (pair(*start, count(words)), counted(words.iter().flat_map(|w| w.to_be_bytes()).collect()))
            }
            Self::Identify => return READ_DEVICE_IDENTIFICATION.to_vec(),
        };
        [vec![self.function()], head, data].concat()
    }

    /// What `pdu` says if it can be the answer to this request; `None` if it is another's, or none at all.
    pub(crate) fn answer(&self, pdu: &[u8]) -> Option<Answer> {
        if let [function, exception] = *pdu
            && function == self.function() | EXCEPTION
        {
            return Some(Answer::Refused(Exception(exception)));
        }
        let (function, rest) = pdu.split_first()?;
        if *function != self.function() {
            return None;
        }
        match self {
            Self::Read { table, count, .. } => words(*table, *count, rest).map(Answer::Words),
            Self::WriteCoil { .. } | Self::WriteRegister { .. } | Self::Echo(_) => {
                (pdu == self.encode()).then_some(Answer::Done)
            }
            Self::WriteCoils { .. } | Self::WriteRegisters { .. } => {
                (pdu == &self.encode()[..5]).then_some(Answer::Done)
            }
            Self::Identify => Some(Answer::Identity(objects(rest)?)),
        }
    }
}

/// How long the answer is that begins with these bytes; `None` while they do not tell, 0 if it is no answer to anything
/// that we ask. Needed where frames follow each other without a length of their own.
pub(crate) fn answer_len(pdu: &[u8]) -> Option<usize> {
    match *pdu.first()? {
        1..=4 => Some(2 + usize::from(*pdu.get(1)?)),
        5 | 6 | 8 | 15 | 16 => Some(5),
        43 => identity_len(pdu),
        function if function & EXCEPTION != 0 => Some(2),
        _ => Some(0),
    }
}

fn identity_len(pdu: &[u8]) -> Option<usize> {
    let mut len = 7;
    for _ in 0..*pdu.get(6)? {
        len += 2 + usize::from(*pdu.get(len + 1)?);
    }
    Some(len)
}

/// The objects of an answer to function 43/14, without the function's own byte.
fn objects(rest: &[u8]) -> Option<Vec<String>> {
    let (head, mut rest) = rest.split_at_checked(6)?;
    if head.first() != Some(&0x0e) {
        return None;
    }
    let mut objects = Vec::new();
    for _ in 0..*head.get(5)? {
        let (len, after) = (usize::from(*rest.get(1)?), rest.get(2..)?);
        objects.push(String::from_utf8_lossy(after.get(..len)?).into_owned());
        rest = after.get(len..)?;
    }
    Some(objects)
}

/// As many words as were asked for, or nothing.
fn words(table: Table, count: u16, rest: &[u8]) -> Option<Vec<u16>> {
    let (len, data) = rest.split_first()?;
    let count = usize::from(count);
    let expected = if table.has_bits() { count.div_ceil(8) } else { 2 * count };
    if data.len() != expected || usize::from(*len) != expected {
        return None;
    }
    if table.has_bits() {
        return Some((0..count).map(|bit| u16::from(data[bit / 8] >> (bit % 8) & 1)).collect());
    }
    Some(data.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]])).collect())
}

fn coil(on: bool) -> u16 {
    if on { 0xff00 } else { 0 }
}

/// Addresses have checked that there are no more than [`LONGEST_RUN`].
fn count<T>(data: &[T]) -> u16 {
    u16::try_from(data.len()).unwrap_or(u16::MAX)
}

fn counted(data: Vec<u8>) -> Vec<u8> {
    let len = u8::try_from(data.len()).unwrap_or(u8::MAX);
    [vec![len], data].concat()
}

/// The first bit is the lowest of the first byte (§6.11).
fn packed(bits: &[bool]) -> Vec<u8> {
    let byte = |bits: &[bool]| bits.iter().rev().fold(0, |byte, bit| byte << 1 | u8::from(*bit));
    bits.chunks(8).map(byte).collect()
}

#[cfg(test)]
#[path = "pdu_tests.rs"]
mod tests;
