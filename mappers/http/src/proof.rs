//! Whether a call comes from the device.

use data_encoding::HEXLOWER_PERMISSIVE;
use hyper::header::{AUTHORIZATION, HeaderMap, HeaderName};
use kubebus_sdk::Error;
use ring::hmac;
use ring::rand::SystemRandom;

use crate::config::{Webhook, wrong};

/// Where GitHub, and many after it, put the signature.
const SIGNATURE: HeaderName = HeaderName::from_static("x-hub-signature-256");

/// What a device has to show.
pub(crate) enum Proof {
    /// `key` is random: nobody can prepare a token whose digest resembles the expected one.
    Token {
        header: HeaderName,
        key: hmac::Key,
        expected: hmac::Tag,
        prefix: &'static str,
    },
    Signature {
        header: HeaderName,
        key: hmac::Key,
    },
}

impl std::fmt::Debug for Proof {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (Self::Token { header, .. } | Self::Signature { header, .. }) = self;
        write!(f, "Proof({header})")
    }
}

impl Proof {
    pub(crate) fn new(webhook: &Webhook) -> Result<Self, Error> {
        let own = webhook.header.as_ref().map(|name| name.parse::<HeaderName>());
        let own = own.transpose().map_err(|_| wrong("webhook.header", "is no header's name"))?;
        let is_empty = |text: &Option<String>| text.as_ref().is_some_and(String::is_empty);
        if is_empty(&webhook.token) || is_empty(&webhook.secret) {
            return Err(wrong("webhook", "an empty token or secret protects nothing"));
        }
        match (&webhook.token, &webhook.secret) {
            (Some(token), None) => {
                let prefix = if own.is_none() { "Bearer " } else { "" };
                let header = own.unwrap_or(AUTHORIZATION);
                let key = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new())
                    .map_err(|_| Error::transient("the system gives no random numbers"))?;
                let expected = hmac::sign(&key, token.as_bytes());
                Ok(Self::Token { header, key, expected, prefix })
            }
            (None, Some(secret)) => {
                let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
                Ok(Self::Signature { header: own.unwrap_or(SIGNATURE), key })
            }
            (None, None) => Err(wrong("webhook", "needs a token or a secret: anybody could call it")),
            (Some(_), Some(_)) => Err(wrong("webhook", "has a token or a secret, not both")),
        }
    }

    pub(crate) fn holds(&self, headers: &HeaderMap, body: &[u8]) -> bool {
        let shown = |header: &HeaderName| headers.get(header).map(hyper::header::HeaderValue::as_bytes);
        match self {
            Self::Token { header, key, expected, prefix } => {
                let token = shown(header).and_then(|shown| shown.strip_prefix(prefix.as_bytes()));
                token.is_some_and(|token| hmac::verify(key, token, expected.as_ref()).is_ok())
            }
            Self::Signature { header, key } => {
                let shown = shown(header).unwrap_or_default();
                let hex = shown.strip_prefix(b"sha256=").unwrap_or(shown);
                HEXLOWER_PERMISSIVE.decode(hex).is_ok_and(|tag| hmac::verify(key, body, &tag).is_ok())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proof(json: &str) -> Result<Proof, Error> {
        let whole = format!(r#"{{"listen":"127.0.0.1:1","path":"/x"{json}}}"#);
        Proof::new(&serde_json::from_str(&whole).unwrap())
    }

    fn with(name: &'static str, value: &str) -> HeaderMap {
        [(HeaderName::from_static(name), value.parse().unwrap())].into_iter().collect()
    }

    #[test]
    fn a_signature_is_the_bodys_own() {
        // RFC 4231, test case 2.
        let hex = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
        let proof = proof(r#","secret":"Jefe""#).unwrap();
        let body = b"what do ya want for nothing?";
        for shown in [hex.to_owned(), format!("sha256={hex}"), hex.to_uppercase()] {
            assert!(proof.holds(&with("x-hub-signature-256", &shown), body), "{shown}");
        }
        assert!(!proof.holds(&with("x-hub-signature-256", hex), b"another body"));
        assert!(!proof.holds(&with("x-hub-signature-256", "sha256="), body));
        assert!(!proof.holds(&with("x-hub-signature-256", &hex[..62]), body));
        assert!(!proof.holds(&with("x-signature", hex), body));
        assert!(!proof.holds(&HeaderMap::new(), b""));
    }

    #[test]
    fn a_token_is_shown_as_bearer_or_in_its_own_header() {
        let bearer = proof(r#","token":"abc""#).unwrap();
        assert!(bearer.holds(&with("authorization", "Bearer abc"), b""));
        for wrong in ["Bearer abcd", "Bearer ", "abc", "Bearer ABC"] {
            assert!(!bearer.holds(&with("authorization", wrong), b""), "{wrong}");
        }
        let own = proof(r#","token":"abc","header":"X-Token""#).unwrap();
        assert!(own.holds(&with("x-token", "abc"), b"") && !own.holds(&HeaderMap::new(), b""));
    }

    #[test]
    fn a_webhook_without_proof_is_refused() {
        for bad in [
            "",
            r#","token":"""#,
            r#","secret":"""#,
            r#","token":"a","secret":"b""#,
            r#","token":"a","header":" ""#,
        ] {
            assert!(matches!(proof(bad), Err(Error::Config(why)) if why.starts_with("webhook")), "{bad}");
        }
    }
}
