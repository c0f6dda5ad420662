//! mosquitto's password file, as `mosquitto_passwd` writes it: one `name:$7$iterations$salt$hash` a line.
//!
//! `$7$` is PBKDF2 with HMAC-SHA512 (RFC 8018 §5.2); `$6$salt$hash`, of mosquitto before 2.0, is one SHA-512 over
//! password and salt. Salt and hash are base64 (RFC 4648 §4). Lines that begin with `#` and empty ones are skipped.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::num::NonZeroU32;

use data_encoding::BASE64;
use thiserror::Error;

use super::Who;

/// Most iterations of one hash: half a second of a core. mosquitto_passwd takes 101 unless told otherwise, and what
/// is recommended for this hash is 210,000. A line with more is refused: each try to log in would cost it.
pub const MAX_ITERATIONS: u32 = 1_000_000;

/// What `kubebus mqtt passwd` takes: about 50 ms of an edge's core, which an attacker with the file pays for each
/// guess.
pub const ITERATIONS: NonZeroU32 = NonZeroU32::new(100_000).unwrap();

/// Most users of one file. A further line is an error: that many names belong into certificates.
pub const MAX_USERS: usize = 65_536;

/// Longest user name in bytes; they end up in logs and topics.
pub const MAX_NAME: usize = 128;

/// Bytes of a SHA-512.
pub const HASH_LEN: usize = 64;

/// Most bytes of a salt; mosquitto's has 12, or 64 in newer versions.
const MAX_SALT: usize = 128;

/// How a password is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hash {
    /// `$7$`: PBKDF2-HMAC-SHA512.
    Pbkdf2 { iterations: NonZeroU32, salt: Vec<u8>, hash: [u8; HASH_LEN] },
    /// `$6$`: SHA-512 of password and salt, in that order.
    Sha512 { salt: Vec<u8>, hash: [u8; HASH_LEN] },
}

impl Hash {
    /// Iterations that a check costs.
    pub fn iterations(&self) -> u32 {
        match self {
            Self::Pbkdf2 { iterations, .. } => iterations.get(),
            Self::Sha512 { .. } => 1,
        }
    }

    fn parse(text: &str) -> Result<Self, EntryError> {
        let mut parts = text.strip_prefix('$').ok_or(EntryError::Plain)?.split('$');
        let mut next = || parts.next().ok_or(EntryError::Short);
        let parsed = match next()? {
            "7" => {
                let iterations =
                    next()?.parse().ok().and_then(NonZeroU32::new).ok_or(EntryError::Iterations)?;
                if iterations.get() > MAX_ITERATIONS {
                    return Err(EntryError::TooManyIterations(iterations.get()));
                }
                Self::Pbkdf2 { iterations, salt: salt(next()?)?, hash: hash(next()?)? }
            }
            "6" => Self::Sha512 { salt: salt(next()?)?, hash: hash(next()?)? },
            other => return Err(EntryError::Kind(other.chars().take(10).collect())),
        };
        parts.next().is_none().then_some(parsed).ok_or(EntryError::Long)
    }
}

fn salt(text: &str) -> Result<Vec<u8>, EntryError> {
    let salt = BASE64.decode(text.as_bytes()).map_err(|_| EntryError::Base64)?;
    (1..=MAX_SALT).contains(&salt.len()).then_some(salt).ok_or(EntryError::Salt)
}

fn hash(text: &str) -> Result<[u8; HASH_LEN], EntryError> {
    let bytes = BASE64.decode(text.as_bytes()).map_err(|_| EntryError::Base64)?;
    bytes.try_into().map_err(|_| EntryError::Hash)
}

/// Why a line holds no entry.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum EntryError {
    #[error("expected name:$7$iterations$salt$hash")]
    Shape,
    #[error(
        "the password is written as it is; run 'mosquitto_passwd -U FILE', or 'kubebus mqtt passwd NAME'"
    )]
    Plain,
    #[error("no name, or one longer than {MAX_NAME} bytes or with control characters")]
    Name,
    #[error("'mapper/' must be followed by a mapper's name")]
    Mapper,
    #[error("this name was there before")]
    Twice,
    #[error("unknown kind of hash '${0}$': $7$ and $6$ are known")]
    Kind(String),
    #[error("the number of iterations is no number above 0")]
    Iterations,
    #[error("{0} iterations are more than {MAX_ITERATIONS}")]
    TooManyIterations(u32),
    #[error("salt or hash is missing")]
    Short,
    #[error("something follows the hash")]
    Long,
    #[error("salt or hash is no base64")]
    Base64,
    #[error("the salt is empty or longer than {MAX_SALT} bytes")]
    Salt,
    #[error("the hash has not {HASH_LEN} bytes")]
    Hash,
    #[error("more than {MAX_USERS} users")]
    TooMany,
}

/// Which line of a password file is wrong, counted from 1.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("line {line}: {why}")]
pub struct PasswordsError {
    pub line: usize,
    pub why: EntryError,
}

/// A user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub who: Who,
    pub hash: Hash,
}

/// All users of a site.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Passwords {
    entries: BTreeMap<Box<str>, Entry>,
    /// The highest of all entries.
    iterations: u32,
}

impl Passwords {
    /// ```
    /// use device_twin::gate::access::Passwords;
    /// let why = Passwords::parse("# users\nalice:secret\n").unwrap_err();
    /// assert!(why.to_string().starts_with("line 2: the password is written as it is"));
    /// ```
    pub fn parse(text: &str) -> Result<Self, PasswordsError> {
        let mut found = Self::default();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim_end_matches(['\r', ' ']);
            if !line.is_empty() && !line.starts_with('#') {
                found.add(line).map_err(|why| PasswordsError { line: index + 1, why })?;
            }
        }
        Ok(found)
    }

    fn add(&mut self, line: &str) -> Result<(), EntryError> {
        let (name, rest) = line.split_once(':').ok_or(EntryError::Shape)?;
        check_name(name)?;
        let entry = Entry { who: Who::of_login(name).ok_or(EntryError::Mapper)?, hash: Hash::parse(rest)? };
        if self.entries.len() >= MAX_USERS {
            return Err(EntryError::TooMany);
        }
        self.iterations = self.iterations.max(entry.hash.iterations());
        self.entries.insert(name.into(), entry).map_or(Ok(()), |_| Err(EntryError::Twice))
    }

    pub fn get(&self, user: &str) -> Option<&Entry> {
        self.entries.get(user)
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// What each try to log in is to cost, whoever it claims to be: the iterations of the dearest entry.
    pub fn cost(&self) -> u32 {
        self.iterations
    }
}

/// Whether a file can hold this name.
pub fn check_name(name: &str) -> Result<(), EntryError> {
    let fits = (1..=MAX_NAME).contains(&name.len()) && !name.starts_with('#') && !name.contains(':');
    if fits && !name.chars().any(char::is_control) { Ok(()) } else { Err(EntryError::Name) }
}

/// One line, with its end.
pub fn line(name: &str, hash: &Hash) -> String {
    let mut line = format!("{name}:");
    let (salt, hash) = match hash {
        Hash::Pbkdf2 { iterations, salt, hash } => {
            let _ = write!(line, "$7${iterations}$");
            (salt, hash)
        }
        Hash::Sha512 { salt, hash } => {
            line.push_str("$6$");
            (salt, hash)
        }
    };
    let _ = writeln!(line, "{}${}", BASE64.encode(salt), BASE64.encode(hash));
    line
}

/// The text of a password file in which `name` has this line, or none. All other lines stay as they are.
pub fn edited(text: &str, name: &str, hash: Option<&Hash>) -> String {
    let mine = |line: &str| line.split_once(':').is_some_and(|(found, _)| found == name);
    let mut new = String::with_capacity(text.len() + 256);
    for other in text.lines().filter(|line| !mine(line)) {
        new.push_str(other);
        new.push('\n');
    }
    new.extend(hash.map(|hash| line(name, hash)));
    new
}

#[cfg(test)]
mod tests {
    use super::*;

    const SALT: &str = "AAECAwQFBgcICQoL";

    fn hash_text() -> String {
        BASE64.encode(&[7; HASH_LEN])
    }

    fn sample() -> Hash {
        Hash::Pbkdf2 {
            iterations: NonZeroU32::new(101).unwrap(),
            salt: (0..12).collect(),
            hash: [7; HASH_LEN],
        }
    }

    #[test]
    fn a_file_reads_back_as_it_was_written() {
        let old = Hash::Sha512 { salt: vec![1, 2], hash: [9; HASH_LEN] };
        let text = format!("# made by hand\n\n{}{}", line("alice", &sample()), line("mapper/modbus", &old));
        let passwords = Passwords::parse(&text).unwrap();
        assert_eq!((passwords.len(), passwords.cost()), (2, 101));
        assert_eq!(passwords.get("alice").unwrap().hash, sample());
        let mapper = passwords.get("mapper/modbus").unwrap();
        assert_eq!((mapper.who.to_string().as_str(), &mapper.hash), ("mapper/modbus", &old));
        assert_eq!(passwords.get("bob"), None);
        assert_eq!(line("alice", &sample()), format!("alice:$7$101${SALT}${}\n", hash_text()));
    }

    #[test]
    fn a_wrong_line_is_named_with_its_number_and_what_is_wrong() {
        let hash = hash_text();
        let table = [
            ("nothing".to_owned(), EntryError::Shape),
            ("alice:secret".to_owned(), EntryError::Plain),
            (format!(":$7$101${SALT}${hash}"), EntryError::Name),
            (format!("a\tb:$7$101${SALT}${hash}"), EntryError::Name),
            (format!("mapper/No:$7$101${SALT}${hash}"), EntryError::Mapper),
            (format!("first:$7$101${SALT}${hash}"), EntryError::Twice),
            (format!("alice:$2b$101${SALT}${hash}"), EntryError::Kind("2b".to_owned())),
            (format!("alice:$7$0${SALT}${hash}"), EntryError::Iterations),
            (format!("alice:$7$x${SALT}${hash}"), EntryError::Iterations),
            (format!("alice:$7$1000001${SALT}${hash}"), EntryError::TooManyIterations(1_000_001)),
            (format!("alice:$7$101${SALT}"), EntryError::Short),
            (format!("alice:$7$101${SALT}${hash}$x"), EntryError::Long),
            (format!("alice:$7$101$!${hash}"), EntryError::Base64),
            (format!("alice:$7$101$${hash}"), EntryError::Salt),
            (format!("alice:$7$101${SALT}${SALT}"), EntryError::Hash),
        ];
        for (wrong, why) in table {
            let text = format!("first:$7$101${SALT}${hash}\n{wrong}\n");
            assert_eq!(Passwords::parse(&text), Err(PasswordsError { line: 2, why }), "{wrong}");
        }
    }

    #[test]
    fn a_changed_password_leaves_the_other_lines_alone() {
        let text = "# kept\nbob:$6$x$y\nalice:old\nalice2:z";
        let mine = line("alice", &sample());
        assert_eq!(edited(text, "alice", Some(&sample())), format!("# kept\nbob:$6$x$y\nalice2:z\n{mine}"));
        assert_eq!(edited(text, "bob", None), "# kept\nalice:old\nalice2:z\n");
        assert_eq!(edited("", "alice", Some(&sample())), mine);
    }
}
