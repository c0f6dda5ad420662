//! Join tokens: `kb1.<base32 of the CA's hash>.<base32 secret>`.
//!
//! The hash lets the joining node know the right cloud before it says anything; the secret is known to the cloud
//! only as its hash.

use std::fmt;
use std::str::FromStr;

use data_encoding::{BASE32_NOPAD, Encoding, Specification};
use sha2::{Digest, Sha256};
use thiserror::Error;

/// SHA-256 of a certificate in DER.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CaHash(pub [u8; 32]);

impl CaHash {
    pub fn of_der(certificate: &[u8]) -> Self {
        Self(Sha256::digest(certificate).into())
    }
}

impl fmt::Display for CaHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&base32().encode(&self.0))
    }
}

impl fmt::Debug for CaHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", &self.to_string()[..8])
    }
}

/// What a cloud stores of a token: SHA-256 of its secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TokenId(pub [u8; 32]);

impl fmt::Display for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&base32().encode(&self.0))
    }
}

/// One invitation. `Debug` hides the secret.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    pub ca: CaHash,
    secret: [u8; Self::SECRET_LEN],
}

/// Why a text is no token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum InvalidToken {
    #[error(
        "a join token looks like kb1.<52 characters>.<32 characters>; copy it whole from 'kubebus token create'"
    )]
    Shape,
    #[error("this token is of a newer version; upgrade kubebus")]
    Version,
}

fn base32() -> Encoding {
    // Lower case as printed, either case as typed. The specification is constant and valid.
    let mut spec: Specification = BASE32_NOPAD.specification();
    spec.symbols = spec.symbols.to_ascii_lowercase();
    spec.translate.from = "ABCDEFGHIJKLMNOPQRSTUVWXYZ".into();
    spec.translate.to = "abcdefghijklmnopqrstuvwxyz".into();
    spec.encoding().unwrap_or(BASE32_NOPAD)
}

impl JoinToken {
    /// 160 bits: not to be guessed, and base32 without padding.
    pub const SECRET_LEN: usize = 20;

    pub fn new(ca: CaHash, secret: [u8; Self::SECRET_LEN]) -> Self {
        Self { ca, secret }
    }

    pub fn id(&self) -> TokenId {
        Self::id_of(&self.secret)
    }

    pub fn secret(&self) -> &[u8; Self::SECRET_LEN] {
        &self.secret
    }

    /// The id under which the cloud knows `secret`.
    pub fn id_of(secret: &[u8]) -> TokenId {
        TokenId(Sha256::digest(secret).into())
    }
}

impl fmt::Display for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "kb1.{}.{}", self.ca, base32().encode(&self.secret))
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "kb1.{:?}.<secret>", self.ca)
    }
}

impl FromStr for JoinToken {
    type Err = InvalidToken;
    fn from_str(text: &str) -> Result<Self, InvalidToken> {
        let mut parts = text.trim().split('.');
        let (Some(version), Some(ca), Some(secret), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(InvalidToken::Shape);
        };
        match version {
            "kb1" => {}
            v if v.len() == 3 && v.starts_with("kb") => return Err(InvalidToken::Version),
            _ => return Err(InvalidToken::Shape),
        }
        let decode = |part: &str| base32().decode(part.as_bytes()).map_err(|_| InvalidToken::Shape);
        let ca = decode(ca)?.try_into().map_err(|_| InvalidToken::Shape)?;
        let secret = decode(secret)?.try_into().map_err(|_| InvalidToken::Shape)?;
        Ok(Self { ca: CaHash(ca), secret })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_reads_back_in_either_case_and_with_white_space() {
        let token = JoinToken::new(CaHash::of_der(b"ca"), [7; 20]);
        let text = token.to_string();
        assert_eq!(text.parse(), Ok(token.clone()));
        let (head, tail) = text.split_at(4);
        assert_eq!(format!(" {head}{}\n", tail.to_uppercase()).parse(), Ok(token));
    }

    #[test]
    fn a_cut_or_foreign_text_says_what_a_token_looks_like() {
        let text = JoinToken::new(CaHash::of_der(b"ca"), [7; 20]).to_string();
        for bad in ["", "kb1", "kb1..", &text[..text.len() - 3], "hello.world.there", &format!("{text}.x")] {
            assert_eq!(bad.parse::<JoinToken>(), Err(InvalidToken::Shape), "{bad}");
        }
        assert_eq!(text.replacen("kb1", "kb2", 1).parse::<JoinToken>(), Err(InvalidToken::Version));
    }

    #[test]
    fn debug_does_not_show_the_secret() {
        let token = JoinToken::new(CaHash::of_der(b"ca"), [7; 20]);
        let secret = token.to_string().rsplit('.').next().unwrap().to_owned();
        assert!(!format!("{token:?}").contains(&secret));
    }
}
