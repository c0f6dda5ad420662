//! Where a property lives in an agent.

use std::fmt;

use async_snmp::Oid;
use kubebus_sdk::JsonSchema;
use serde::Deserialize;

/// One object of an agent.
///
/// ```
/// use mapper_snmp::address::Address;
/// let address: Address = serde_json::from_str(r#"{"oid": "ifInOctets.2"}"#).unwrap();
/// assert_eq!(address.oid.to_string(), "1.3.6.1.2.1.2.2.1.10.2");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[schemars(crate = "kubebus_sdk::schemars")]
#[serde(deny_unknown_fields)]
pub struct Address {
    /// The object with its instance: `1.3.6.1.2.1.1.3.0`, or one of the names of `NAMES` with its instance: `sysUpTime.0`.
    pub oid: ObjectId,
    /// What a write sends; without it the agent is asked what it has there.
    #[serde(default, rename = "type")]
    pub kind: Option<Kind>,
}

/// A type of SMIv2 (RFC 2578 §7.1) that can be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[schemars(crate = "kubebus_sdk::schemars")]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// INTEGER, also an enumeration or a TruthValue.
    Integer,
    /// Gauge32 and Unsigned32.
    Gauge,
    TimeTicks,
    /// OCTET STRING.
    Octets,
    /// OBJECT IDENTIFIER.
    Oid,
    /// IpAddress.
    Ip,
}

/// An object identifier that can be asked for, checked when it is read.
#[derive(Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[schemars(crate = "kubebus_sdk::schemars", with = "String")]
#[serde(try_from = "String")]
pub struct ObjectId(Oid);

/// Columns and scalars of RFC 3418 and RFC 2863 that many agents have.
const NAMES: [(&str, &[u32]); 19] = [
    ("sysDescr", &[1, 3, 6, 1, 2, 1, 1, 1]),
    ("sysUpTime", &[1, 3, 6, 1, 2, 1, 1, 3]),
    ("sysContact", &[1, 3, 6, 1, 2, 1, 1, 4]),
    ("sysName", &[1, 3, 6, 1, 2, 1, 1, 5]),
    ("sysLocation", &[1, 3, 6, 1, 2, 1, 1, 6]),
    ("ifDescr", &[1, 3, 6, 1, 2, 1, 2, 2, 1, 2]),
    ("ifSpeed", &[1, 3, 6, 1, 2, 1, 2, 2, 1, 5]),
    ("ifAdminStatus", &[1, 3, 6, 1, 2, 1, 2, 2, 1, 7]),
    ("ifOperStatus", &[1, 3, 6, 1, 2, 1, 2, 2, 1, 8]),
    ("ifInOctets", &[1, 3, 6, 1, 2, 1, 2, 2, 1, 10]),
    ("ifInDiscards", &[1, 3, 6, 1, 2, 1, 2, 2, 1, 13]),
    ("ifInErrors", &[1, 3, 6, 1, 2, 1, 2, 2, 1, 14]),
    ("ifOutOctets", &[1, 3, 6, 1, 2, 1, 2, 2, 1, 16]),
    ("ifOutDiscards", &[1, 3, 6, 1, 2, 1, 2, 2, 1, 19]),
    ("ifOutErrors", &[1, 3, 6, 1, 2, 1, 2, 2, 1, 20]),
    ("ifName", &[1, 3, 6, 1, 2, 1, 31, 1, 1, 1, 1]),
    ("ifHCInOctets", &[1, 3, 6, 1, 2, 1, 31, 1, 1, 1, 6]),
    ("ifHCOutOctets", &[1, 3, 6, 1, 2, 1, 31, 1, 1, 1, 10]),
    ("ifHighSpeed", &[1, 3, 6, 1, 2, 1, 31, 1, 1, 1, 15]),
];

/// The object of this name without an instance.
pub(crate) fn named(name: &str) -> Option<Oid> {
    NAMES.iter().find(|(known, _)| *known == name).map(|(_, arcs)| Oid::from_slice(arcs))
}

impl ObjectId {
    pub(crate) fn as_oid(&self) -> &Oid {
        &self.0
    }
}

impl TryFrom<String> for ObjectId {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let (name, instance) = text.split_once('.').unwrap_or((&text, ""));
        let parsed = if let Some(object) = named(name) {
            let instance = Oid::parse(instance).map_err(|e| e.to_string())?;
            if instance.is_empty() {
                return Err(format!(
                    "'{text}' lacks its instance: {name}.0 for a scalar, {name}.INDEX in a table"
                ));
            }
            Oid::new(object.arcs().iter().chain(instance.arcs()).copied())
        } else {
            Oid::parse(&text).map_err(|_| unknown(&text))?
        };
        match parsed.validate_for_wire() {
            Ok(()) if parsed.len() > 2 => Ok(Self(parsed)),
            _ => Err(unknown(&text)),
        }
    }
}

fn unknown(text: &str) -> String {
    let names: Vec<&str> = NAMES.iter().map(|(name, _)| *name).collect();
    let text: String = text.chars().take(80).collect();
    format!(
        "'{text}' is no OID: numbers like 1.3.6.1.2.1.1.3.0, or one of {} with an instance",
        names.join(", ")
    )
}

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(json: &str) -> Result<Address, String> {
        serde_json::from_str(json).map_err(|e| e.to_string())
    }

    #[test]
    fn objects_are_numbers_or_well_known_names() {
        let table = [
            ("1.3.6.1.2.1.1.3.0", "1.3.6.1.2.1.1.3.0"),
            (".1.3.6.1.2.1.1.3.0", "1.3.6.1.2.1.1.3.0"),
            ("sysUpTime.0", "1.3.6.1.2.1.1.3.0"),
            ("ifHCInOctets.12", "1.3.6.1.2.1.31.1.1.1.6.12"),
        ];
        for (text, oid) in table {
            assert_eq!(address(&format!(r#"{{"oid":"{text}"}}"#)).unwrap().oid.to_string(), oid);
        }
    }

    #[test]
    fn what_is_no_object_says_what_one_looks_like() {
        let table = [
            ("", "is no OID"),
            ("1", "is no OID"),
            ("1.3", "is no OID"),
            ("3.1.2", "is no OID"),
            ("1.3..6", "is no OID"),
            ("1.3.99999999999", "is no OID"),
            ("sysUptime.0", "sysUpTime"),
            ("sysUpTime", "sysUpTime.0 for a scalar"),
            ("sysUpTime.", "lacks its instance"),
        ];
        for (text, expected) in table {
            let error = address(&format!(r#"{{"oid":"{text}"}}"#)).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
        assert!(address(&format!(r#"{{"oid":"1{}"}}"#, ".1".repeat(200))).is_err());
        assert!(address(r#"{"oid":"1.3.6.1", "typ":"integer"}"#).unwrap_err().contains("typ"));
    }

    #[test]
    fn a_write_may_name_its_type() {
        assert_eq!(address(r#"{"oid":"sysName.0","type":"octets"}"#).unwrap().kind, Some(Kind::Octets));
        assert!(address(r#"{"oid":"sysName.0","type":"text"}"#).unwrap_err().contains("octets"));
    }
}
