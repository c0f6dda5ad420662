//! PEM: bytes as text, for those who paste them (RFC 7468).

use data_encoding::BASE64;
use thiserror::Error;

/// Characters of base64 in a line (RFC 7468 §2).
const WIDTH: usize = 64;

/// Why a text is not the PEM that is wanted.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum InvalidPem {
    #[error("holds a private key, which never leaves its owner: send a CERTIFICATE REQUEST made with it")]
    PrivateKey,
    #[error("is no PEM of one {0}: it begins with -----BEGIN {0}-----")]
    Label(&'static str),
    #[error("is not base64 between BEGIN and END")]
    Base64,
}

/// One block.
pub fn encode(label: &str, der: &[u8]) -> String {
    let text = BASE64.encode(der);
    let mut lines = vec![format!("-----BEGIN {label}-----")];
    lines.extend(text.as_bytes().chunks(WIDTH).map(|line| String::from_utf8_lossy(line).into_owned()));
    lines.push(format!("-----END {label}-----\n"));
    lines.join("\n")
}

/// The bytes of a text that is one block with this label and nothing else.
pub fn decode(label: &'static str, text: &str) -> Result<Vec<u8>, InvalidPem> {
    if text.contains("PRIVATE KEY") {
        return Err(InvalidPem::PrivateKey);
    }
    let body = text.trim().strip_prefix(&*format!("-----BEGIN {label}-----"));
    let body = body.and_then(|rest| rest.strip_suffix(&*format!("-----END {label}-----")));
    let body: String = body.ok_or(InvalidPem::Label(label))?.split_whitespace().collect();
    BASE64.decode(body.as_bytes()).map_err(|_| InvalidPem::Base64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_reads_back_and_a_private_key_is_sent_back() {
        let der: Vec<u8> = (0..200).collect();
        let text = encode("CERTIFICATE REQUEST", &der);
        assert_eq!(text.lines().nth(1).map(str::len), Some(WIDTH));
        assert_eq!(decode("CERTIFICATE REQUEST", &format!("\n{text}\n")), Ok(der.clone()));
        assert_eq!(
            decode("CERTIFICATE REQUEST", &encode("EC PRIVATE KEY", &der)),
            Err(InvalidPem::PrivateKey)
        );
        let both = format!("{text}{}", encode("PRIVATE KEY", &der));
        assert_eq!(decode("CERTIFICATE REQUEST", &both), Err(InvalidPem::PrivateKey));
        assert_eq!(decode("CERTIFICATE REQUEST", &text[2..]), Err(InvalidPem::Label("CERTIFICATE REQUEST")));
        assert_eq!(decode("CERTIFICATE REQUEST", &text.replace("AAEC", "A*EC")), Err(InvalidPem::Base64));
    }
}
