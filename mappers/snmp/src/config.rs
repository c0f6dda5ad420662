//! How an agent is reached, and what it lets us do.

use std::fmt;
use std::time::Duration;

use async_snmp::{Auth, AuthProtocol, PrivProtocol, Retry, UsmConfig};
use kubebus_sdk::{Error, JsonSchema};
use serde::{Deserialize, Serialize};

/// Longest that one request with its repetitions may take, so that a reading of a few requests ends in time.
const LONGEST_MS: u64 = 8000;

/// Shortest password that USM takes (RFC 3414 §11.2).
const SHORTEST_PASSWORD: usize = 8;

/// Connection settings of one agent.
///
/// ```
/// use mapper_snmp::config::Config;
/// let config: Config = serde_json::from_str(r#"{"agent": "10.0.0.8:161", "community": "plant"}"#).unwrap();
/// assert!(config.auth().is_ok());
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(crate = "kubebus_sdk::schemars")]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Host and port; the port is 161 if it is left out. For discovery also a network: `10.0.0.0/28`.
    pub agent: String,
    #[serde(default)]
    pub version: Version,
    /// Versions 1 and 2c: what the agent wants to hear; `public` if it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub community: Option<Secret>,
    /// Version 3: the user's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Version 3: how messages are authenticated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth: Option<Digest>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth_password: Option<Secret>,
    /// Version 3: how messages are encrypted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub privacy: Option<Cipher>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub privacy_password: Option<Secret>,
    /// Version 3: the context, for an agent that speaks for several devices.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context: Option<String>,
    /// How long one answer may take.
    #[serde(default = "two_seconds")]
    pub timeout_ms: u64,
    /// How often a reading is asked again when no answer comes. A write is never sent again.
    #[serde(default = "once")]
    pub retries: u32,
}

fn two_seconds() -> u64 {
    2000
}

fn once() -> u32 {
    1
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(crate = "kubebus_sdk::schemars")]
pub enum Version {
    #[serde(rename = "1")]
    V1,
    #[default]
    #[serde(rename = "2c")]
    V2c,
    #[serde(rename = "3")]
    V3,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(crate = "kubebus_sdk::schemars")]
#[serde(rename_all = "lowercase")]
pub enum Digest {
    Md5,
    Sha1,
    Sha224,
    Sha256,
    Sha384,
    Sha512,
}

/// DES is left out: it needs counters on disk that survive a restart, and protects nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(crate = "kubebus_sdk::schemars")]
pub enum Cipher {
    #[serde(rename = "aes128")]
    Aes128,
    #[serde(rename = "aes192")]
    Aes192,
    #[serde(rename = "aes256")]
    Aes256,
    /// With keys made as Cisco makes them.
    #[serde(rename = "aes192-cisco")]
    Aes192Cisco,
    #[serde(rename = "aes256-cisco")]
    Aes256Cisco,
}

/// A password that does not get into a log.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(crate = "kubebus_sdk::schemars")]
#[serde(transparent)]
pub struct Secret(String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

impl Config {
    /// What to say to the agent about who we are; an [`Error::Config`] names the setting that does not fit.
    pub fn auth(&self) -> Result<Auth, Error> {
        match self.version {
            Version::V1 | Version::V2c => self.community_auth(),
            Version::V3 => self.user_auth(),
        }
    }

    fn community_auth(&self) -> Result<Auth, Error> {
        let Self { user, auth, auth_password, privacy, privacy_password, context, .. } = self;
        let of_version_3 = [
            ("user", user.is_some()),
            ("auth", auth.is_some()),
            ("auth_password", auth_password.is_some()),
            ("privacy", privacy.is_some()),
            ("privacy_password", privacy_password.is_some()),
            ("context", context.is_some()),
        ];
        if let Some((name, _)) = of_version_3.iter().find(|(_, given)| *given) {
            return Err(config(format!("{name} is for version 3: say \"version\": \"3\" or leave it out")));
        }
        let community = self.community.as_ref().map_or("public", |secret| &secret.0).to_owned();
        Ok(if self.version == Version::V1 { Auth::v1(community) } else { Auth::v2c(community) })
    }

    fn user_auth(&self) -> Result<Auth, Error> {
        if self.community.is_some() {
            return Err(config(
                "community is for versions 1 and 2c: leave it out, or say \"version\": \"2c\"",
            ));
        }
        let Some(user) = self.user.clone().filter(|user| !user.is_empty() && user.len() <= 32) else {
            return Err(config("user is missing: version 3 wants a user's name of 1 to 32 bytes"));
        };
        let auth = pair("auth", self.auth, self.auth_password.as_ref())?;
        let privacy = pair("privacy", self.privacy, self.privacy_password.as_ref())?;
        let usm = UsmConfig::new(user).context_name(self.context.clone().unwrap_or_default());
        let usm = match (auth, privacy) {
            (None, None) => Ok(usm),
            (Some((digest, password)), None) => usm.auth(digest.into(), password),
            (Some((digest, password)), Some((cipher, other))) => {
                usm.auth_priv(digest.into(), password, cipher.into(), other)
            }
            (None, Some(_)) => {
                return Err(config("auth is missing: privacy needs auth and auth_password too"));
            }
        };
        Ok(Auth::Usm(usm.map_err(config)?))
    }

    /// How long one answer may take, and how often it is asked for.
    pub(crate) fn patience(&self) -> Result<(Duration, Retry), Error> {
        let longest = self.timeout_ms.saturating_mul(u64::from(self.retries).saturating_add(1));
        if self.timeout_ms == 0 || longest > LONGEST_MS {
            return Err(config(format!(
                "timeout_ms is {} and retries {}: timeout_ms * (retries + 1) must be 1 to {LONGEST_MS}",
                self.timeout_ms, self.retries
            )));
        }
        let retry = Retry::fixed(self.retries, Duration::ZERO).map_err(config)?;
        Ok((Duration::from_millis(self.timeout_ms), retry))
    }
}

/// An algorithm and its password, which come together.
fn pair<'a, T>(
    name: &str,
    algorithm: Option<T>,
    password: Option<&'a Secret>,
) -> Result<Option<(T, &'a str)>, Error> {
    match (algorithm, password) {
        (None, None) => Ok(None),
        (Some(algorithm), Some(Secret(password))) if password.len() >= SHORTEST_PASSWORD => {
            Ok(Some((algorithm, password)))
        }
        (Some(_), Some(_)) => {
            Err(config(format!("{name}_password is too short: at least {SHORTEST_PASSWORD} bytes")))
        }
        (Some(_), None) => Err(config(format!("{name}_password is missing: {name} needs it"))),
        (None, Some(_)) => Err(config(format!("{name} is missing: {name}_password says nothing without it"))),
    }
}

pub(crate) fn config(why: impl fmt::Display) -> Error {
    Error::Config(why.to_string())
}

impl From<Digest> for AuthProtocol {
    fn from(digest: Digest) -> Self {
        match digest {
            Digest::Md5 => Self::Md5,
            Digest::Sha1 => Self::Sha1,
            Digest::Sha224 => Self::Sha224,
            Digest::Sha256 => Self::Sha256,
            Digest::Sha384 => Self::Sha384,
            Digest::Sha512 => Self::Sha512,
        }
    }
}

impl From<Cipher> for PrivProtocol {
    fn from(cipher: Cipher) -> Self {
        match cipher {
            Cipher::Aes128 => Self::Aes128,
            Cipher::Aes192 => Self::Aes192Blumenthal,
            Cipher::Aes256 => Self::Aes256Blumenthal,
            Cipher::Aes192Cisco => Self::Aes192Reeder,
            Cipher::Aes256Cisco => Self::Aes256Reeder,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Config {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn settings_are_read_as_documented() {
        let plain = read(r#"{"agent":"10.0.0.8"}"#);
        assert_eq!((plain.version, plain.timeout_ms, plain.retries), (Version::V2c, 2000, 1));
        assert!(matches!(plain.auth(), Ok(Auth::Community { .. })));
        let user = r#"{"agent":"a:161","version":"3","user":"plant","auth":"sha256","auth_password":"12345678",
            "privacy":"aes128","privacy_password":"87654321","context":"vlan7"}"#;
        let user = read(user);
        assert!(matches!(user.auth(), Ok(Auth::Usm(usm)) if usm.security_level().requires_priv()));
        let again: Config = serde_json::from_value(serde_json::to_value(&user).unwrap()).unwrap();
        assert_eq!(again, user);
    }

    #[test]
    fn settings_that_do_not_fit_are_named() {
        let table = [
            (r#""user":"x""#, "user is for version 3"),
            (r#""version":"3""#, "user is missing"),
            (r#""version":"3","user":"x","community":"c""#, "community is for"),
            (r#""version":"3","user":"x","auth":"sha1""#, "auth_password is missing"),
            (r#""version":"3","user":"x","auth_password":"12345678""#, "auth is missing"),
            (
                r#""version":"3","user":"x","auth":"md5","auth_password":"short""#,
                "auth_password is too short",
            ),
            (
                r#""version":"3","user":"x","privacy":"aes256","privacy_password":"12345678""#,
                "auth is missing",
            ),
        ];
        for (settings, expected) in table {
            let error = read(&format!(r#"{{"agent":"a",{settings}}}"#)).auth().unwrap_err();
            assert!(matches!(&error, Error::Config(why) if why.contains(expected)), "{settings}: {error}");
        }
        for settings in [r#""timeout_ms":0"#, r#""timeout_ms":3000,"retries":2"#, r#""retries":4294967295"#] {
            let error = read(&format!(r#"{{"agent":"a",{settings}}}"#)).patience().unwrap_err();
            assert!(
                matches!(&error, Error::Config(why) if why.contains("timeout_ms")),
                "{settings}: {error}"
            );
        }
        for json in [r#"{}"#, r#"{"agent":"a","comunity":"c"}"#, r#"{"agent":"a","privacy":"des"}"#] {
            assert!(serde_json::from_str::<Config>(json).is_err(), "{json}");
        }
    }

    #[test]
    fn a_password_does_not_get_into_a_log() {
        let config = read(r#"{"agent":"a","community":"hush"}"#);
        assert!(!format!("{config:?}").contains("hush"));
    }
}
