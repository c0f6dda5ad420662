//! What is stored of twins, what edge and cloud tell each other, and what apps get to see.
//!
//! | key | value |
//! |---|---|
//! | cloud `/e/<edge>/desired/<ns>/<device>/<property>`, edge `/m/desired/..` | [`Desired`] |
//! | cloud `/e/<edge>/withdrawn/..`, edge `/m/withdrawn/..` | the [`DesiredVersion`] up to which nothing is wished any more |
//! | edge `/t/reported/..`, cloud `/c/reported/..` | [`Reported`] |
//! | edge `/t/desired/..` | [`Handled`]: which desired value was decided on, and how it ended |
//! | edge `/t/write/..` | [`WriteRecord`]: the last write, and whether it ended |
//! | edge `/t/rule/<ns>/<rule>` | [`Kept`](crate::rule::Kept): which comparisons held, and what is latched |
//! | edge `/t/own/..` | the [`Desired`] value in force that the cloud has no row of: wished here, or since refused |
//! | edge `/t/outranked/..` | the [`DesiredVersion`] up to which wishes were refused for their authority, or are over |
//! | cloud `/c/desired/..` | what is in force at an edge, as it told it |
//! | cloud `/e/<edge>/authority/<ns>/<device>`, edge `/m/authority/..` and `/t/authority/..` | [`crate::Authority`] |
//! | cloud `/e/<edge>/command/<ns>/<device>/<id>`, edge `/m/command/..` | [`crate::command::Command`], as JSON |
//! | edge `/t/order/<ns>/<device>/<id>` | the same, given at the edge |
//! | edge `/t/command/<ns>/<device>/<id>` | [`crate::command::Account`] |
//! | cloud `/c/command/<ns>/<device>/<id>` | what the cloud knows of a command |
//! | cloud `/c/rule/<ns>/<rule>` | [`crate::rule::RuleView`], as its edge told it |
//! | cloud `/e/<edge>/unit/..`, edge `/m/unit/..` | the unit of another site's property that a rule there reads |
//! | edge `/t/rev` | numbers below this may have been given out |
//! | edge `/t/life` | when the present life of the edge's disk began, by its own clock |
//! | cloud `/c/result/..` | the last [`TwinResult`]s of a property |
//! | cloud `/c/state/<ns>/<device>` | [`DeviceState`] |
//! | cloud `/c/version/..` | the last [`DesiredVersion`] given out; outlives the device |
//! | cloud `/c/manifest-desired/..` | the manifest's wish that was last made a desired value |
//! | cloud `/c/manifest-before/..` | hashes of the texts it wished before that |
//! | cloud `/c/former/<block>` | a Bloom filter of both of devices that are gone |
//!
//! All of it is minicbor with numbered fields: a newer node's additions are skipped by an older one.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bus::twin::{DesiredVersion, DeviceId, Outcome, ReportedVersion, TwinTopic};
use bus::{Name, Quality, Sample, Topic, UnixMillis, Value};
use bytes::Bytes;
use metadata::Key;
use minicbor::data::Type;
use minicbor::{Decode, Decoder, Encode};
use serde::{Deserialize, Serialize};

use crate::model::{InvalidValue, Property};
use crate::reply::ReplyTo;

/// An input of a client that wants to be told once it is durable: becomes its PUBACK.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// How long after it is said a message may still be delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Expiry(pub Duration);

/// What a client says, with what its message says of itself.
#[derive(Debug, Clone)]
pub struct Said<'a> {
    pub payload: &'a [u8],
    /// What is left of the message's own.
    pub expiry: Option<Expiry>,
    /// Who asks to be answered. Only commands are.
    pub reply: Option<ReplyTo>,
}

impl<'a> Said<'a> {
    /// Without an expiry, and nobody asks to be answered.
    pub fn plain(payload: &'a [u8]) -> Self {
        Self { payload, expiry: None, reply: None }
    }
}

/// A message for a broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publish {
    pub topic: Topic,
    pub payload: Bytes,
    pub retain: bool,
    pub expiry: Option<Expiry>,
}

impl Publish {
    pub(crate) fn retained(topic: &TwinTopic, body: &impl Serialize) -> Self {
        Self { topic: topic.topic(), payload: json(body), retain: true, expiry: None }
    }

    pub(crate) fn once(topic: &TwinTopic, body: &impl Serialize) -> Self {
        Self { topic: topic.topic(), payload: json(body), retain: false, expiry: None }
    }
}

#[cfg(test)]
impl Publish {
    /// A result of `device` as tests compare it: what it is about, outcome and why.
    pub(crate) fn as_result(&self, device: &str) -> Option<String> {
        if self.topic.as_str() != format!("twin/{device}/result") {
            return None;
        }
        let body: bus::twin::ResultBody = serde_json::from_slice(&self.payload).unwrap();
        let version = body.version.map(|version| version.to_string());
        let about = body.command.or(version).unwrap_or_default();
        let detail = if body.detail.is_empty() { String::new() } else { format!(": {}", body.detail) };
        Some(format!("{} {about} {:?}{detail}", body.property, body.outcome).trim().to_owned())
    }
}

/// One property of one device, written `<namespace>/<device>/<property>`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PropertyId {
    pub device: DeviceId,
    pub property: Arc<str>,
}

impl fmt::Display for PropertyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.device, self.property)
    }
}

impl fmt::Debug for PropertyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl PropertyId {
    pub fn new(device: &DeviceId, property: &str) -> Self {
        Self { device: device.clone(), property: property.into() }
    }

    /// From the end of a key; `None` if it names no property.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.splitn(3, '/');
        let device =
            DeviceId { namespace: Name::new(parts.next()?).ok()?, name: Name::new(parts.next()?).ok()? };
        let property = parts.next()?;
        let topic = Topic::new(&format!("twin/{device}/reported/{property}")).ok()?;
        TwinTopic::parse(&topic)?;
        Some(Self { device, property: property.into() })
    }

    pub(crate) fn reported_topic(&self) -> TwinTopic {
        TwinTopic::Reported { device: self.device.clone(), property: self.property.to_string() }
    }

    pub(crate) fn desired_topic(&self) -> TwinTopic {
        TwinTopic::Desired { device: self.device.clone(), property: self.property.to_string() }
    }
}

#[expect(
    clippy::expect_used,
    reason = "names and properties are printable ASCII and 63 + 63 + 63 + 128 bytes long"
)]
pub(crate) fn key(prefix: &str, rest: impl fmt::Display) -> Key {
    Key::new(&format!("{prefix}{rest}")).expect("parts of a twin's key are checked")
}

/// A wish for a property, as its authority made it.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub struct Desired {
    #[n(0)]
    pub value: Value,
    #[n(1)]
    pub version: DesiredVersion,
    /// On the cloud's clock; bounds its age and nothing else.
    #[n(2)]
    pub issued: UnixMillis,
    /// Who wished it, for people.
    #[n(3)]
    pub by: String,
    /// What it is carried out with, or not at all.
    #[n(4)]
    pub group: Option<Group>,
}

/// Wishes of one change: an edge carries out all of them or none.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub struct Group {
    /// Unique in the cluster.
    #[n(0)]
    pub id: String,
    /// `<namespace>/<device>/<property>` of each, this one included.
    #[n(1)]
    pub members: Vec<String>,
}

/// What became of a desired value: reported back by version.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct Ack {
    #[n(0)]
    pub version: DesiredVersion,
    #[n(1)]
    pub outcome: Outcome,
    #[n(2)]
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
}

impl Ack {
    /// Whether `version` was carried out.
    pub fn answers(&self, version: DesiredVersion) -> bool {
        self.version == version && self.outcome == Outcome::Succeeded
    }
}

/// What an edge says of one property.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub struct Reported {
    #[n(0)]
    pub version: ReportedVersion,
    /// `None`: nothing was read yet.
    #[n(1)]
    pub sample: Option<Sample>,
    #[n(2)]
    pub ack: Option<Ack>,
}

/// How one wish or report ended; goes up as an event, so that none is coalesced away.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct TwinResult {
    #[n(0)]
    pub outcome: Outcome,
    #[n(1)]
    pub version: Option<DesiredVersion>,
    #[n(2)]
    pub detail: String,
    /// On the edge's clock, for display.
    #[n(3)]
    pub at: UnixMillis,
}

/// The desired value that an edge last decided on. It never decides on this or an older version again.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Handled {
    #[n(0)]
    pub version: DesiredVersion,
    /// `None`: it was taken on and its end is not known yet.
    #[n(1)]
    pub ack: Option<Ack>,
    /// It was not taken on at all.
    #[n(2)]
    #[cbor(default)]
    pub refused: bool,
}

/// Wishes of the cloud up to `version` are over at the edge: carried out and replaced, refused, or withdrawn.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Outranked {
    #[n(0)]
    pub version: DesiredVersion,
    /// The edge knows of no wish for the property that it ever decided on: its disk may be a new one.
    #[n(1)]
    pub fresh: bool,
}

/// The last write that a mapper was asked for, persisted before it is asked, and again when it ends.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub struct WriteRecord {
    #[n(0)]
    pub id: String,
    #[n(1)]
    pub value: Value,
    /// Set if it carries out a desired value of the cloud.
    #[n(2)]
    pub version: Option<DesiredVersion>,
    #[n(3)]
    pub cause: String,
    #[n(4)]
    pub sent: UnixMillis,
    /// `None`: it is under way.
    #[n(5)]
    pub outcome: Option<Outcome>,
}

/// Whether a device can be worked with.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Encode, Decode, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Availability {
    /// Its edge is not heard of: what was said of it last may be wrong by now. Only the cloud says so.
    #[n(3)]
    #[default]
    Unknown,
    /// Its mapper is away, or it has none.
    #[n(0)]
    Offline,
    /// Its mapper is there, some property is not heard of.
    #[n(1)]
    Degraded,
    #[n(2)]
    Online,
}

/// `twin/../state`.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct DeviceState {
    #[n(0)]
    pub state: Availability,
    #[n(1)]
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// When it was last heard of, on its edge's clock, as this state began.
    #[n(2)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_seen: Option<UnixMillis>,
}

impl DeviceState {
    /// Whether both say the same of the device, whenever it was last heard of.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        let Self { state, reason, last_seen: _ } = self;
        (state, reason) == (&other.state, &other.reason)
    }
}

/// `twin/../reported/<property>`: a [`Sample`] with its version and the last acknowledgement.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ReportedBody {
    pub value: Value,
    pub time: UnixMillis,
    pub quality: Quality,
    pub rev: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ack: Option<Ack>,
    /// How old the reading was when this was said, in milliseconds on the monotonic clock of the edge that read it.
    /// Absent: not known, as in the cloud's copies; rules then take it for old.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub age_ms: Option<u64>,
}

/// `twin/../desired/<property>`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DesiredBody {
    pub value: Value,
    pub version: DesiredVersion,
    pub issued: UnixMillis,
    pub by: String,
}

/// `twin/../set/<property>`: an object with a value, or a bare value. At an edge an empty payload lets go of what was
/// set there.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum SetBody {
    Full {
        value: Value,
        /// UCUM code of what the value is counted in. Absent: the property's unit.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        unit: Option<String>,
    },
    Bare(Value),
}

impl SetBody {
    /// The value as `property` shall get it.
    ///
    /// # Errors
    /// It names a unit that measures something else, or the property cannot be set to it.
    pub fn check(self, property: &Property) -> Result<Value, InvalidValue> {
        let (value, unit) = match self {
            Self::Full { value, unit } => (value, unit),
            Self::Bare(value) => (value, None),
        };
        property.check_desired(property.in_unit(value, unit.as_deref())?)
    }
}

impl From<Value> for SetBody {
    fn from(value: Value) -> Self {
        Self::Bare(value)
    }
}

impl ReportedBody {
    /// `None` while nothing was read.
    pub fn of(reported: &Reported, age: Option<Duration>) -> Option<Self> {
        let Reported { version, sample, ack } = reported;
        let Sample { value, time, quality } = sample.clone()?;
        Some(Self { value, time, quality, rev: version.rev, ack: ack.clone(), age_ms: age.map(millis) })
    }
}

impl From<&Desired> for DesiredBody {
    fn from(desired: &Desired) -> Self {
        let Desired { value, version, issued, by, group: _ } = desired.clone();
        Self { value, version, issued, by }
    }
}

#[expect(clippy::expect_used, reason = "our own types, string keys only")]
pub(crate) fn json(body: &impl Serialize) -> Bytes {
    exact(serde_json::to_vec(body).expect("no map with other keys than text"))
}

#[expect(clippy::expect_used, reason = "writing to memory cannot fail")]
pub(crate) fn cbor(body: &impl Encode<()>) -> Bytes {
    exact(minicbor::to_vec(body).expect("writing to memory"))
}

/// Without the room that was left for more: what is written here is kept for long, a property's worth thousands of
/// times.
pub(crate) fn exact(bytes: Vec<u8>) -> Bytes {
    bytes.into_boxed_slice().into()
}

/// The deepest nesting that is decoded: JSON stops at 128 levels, and one level of a value takes three here.
const MAX_DEPTH: usize = 512;

/// Reads what [`cbor`] wrote; `None` for anything else, however it is nested.
pub(crate) fn decode<'b, T: Decode<'b, ()>>(bytes: &'b [u8]) -> Option<T> {
    if is_shallow(bytes) { minicbor::decode(bytes).ok() } else { None }
}

/// Values decode recursively: a peer must not choose how deep. We write definite lengths only.
fn is_shallow(bytes: &[u8]) -> bool {
    let mut decoder = Decoder::new(bytes);
    let mut left: Vec<u64> = vec![1];
    while let Some(n) = left.last_mut() {
        if *n == 0 {
            left.pop();
            continue;
        }
        *n -= 1;
        match open(&mut decoder) {
            Ok(Some(parts)) if left.len() < MAX_DEPTH => left.push(parts),
            Ok(None) => {}
            Ok(Some(_)) | Err(_) => return false,
        }
    }
    true
}

/// Steps over a scalar, or into an array or map: the number of its parts.
fn open(decoder: &mut Decoder<'_>) -> Result<Option<u64>, minicbor::decode::Error> {
    let kind = decoder.datatype()?;
    if matches!(kind, Type::ArrayIndef | Type::MapIndef) {
        return Err(minicbor::decode::Error::message("of indefinite length"));
    }
    if kind == Type::Array {
        return decoder.array();
    }
    if kind == Type::Map {
        return Ok(decoder.map()?.map(|pairs| pairs.saturating_mul(2)));
    }
    decoder.skip().map(|()| None)
}

/// `<namespace>/<device>`, as keys have it: the namespace is never left out there.
pub(crate) fn parse_device(text: &str) -> Option<DeviceId> {
    text.parse().ok().filter(|_| text.contains('/'))
}

pub(crate) fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// Longest detail that is passed on and stored: a sentence, not the payload that an error may quote.
const MAX_DETAIL_CHARS: usize = 256;

/// As much of a text that others wrote as is stored and passed on.
pub(crate) fn brief(text: &str) -> String {
    text.chars().take(MAX_DETAIL_CHARS).collect()
}

/// The error with its causes, on one line and in brief, for people.
pub(crate) fn explain(error: &dyn std::error::Error) -> String {
    brief(&bus::with_causes(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_property_reads_back_from_its_key_and_other_texts_do_not() {
        let id = PropertyId::parse("water/tank/level.1").unwrap();
        assert_eq!(id.to_string(), "water/tank/level.1");
        assert_eq!(key("/t/reported/", &id).as_str(), "/t/reported/water/tank/level.1");
        for bad in
            ["", "water/tank", "water/tank/", "water/tank/a/b", "Water/tank/a", "water/tank/a b", "w/t/+"]
        {
            assert_eq!(PropertyId::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_value_nested_without_end_is_refused_and_the_deepest_json_is_not() {
        let json = format!("{}1{}", "{\"a\":".repeat(120), "}".repeat(120));
        let deep: Value = serde_json::from_str(&json).unwrap();
        assert_eq!(decode::<Value>(&cbor(&deep)), Some(deep));
        let bomb: Vec<u8> = [0x82, 0x04, 0x81, 0xa1, 0x60].repeat(100_000);
        assert_eq!(decode::<Value>(&bomb), None);
    }

    #[test]
    fn a_set_is_an_object_with_a_value_or_a_bare_one() {
        let read = |json: &str| serde_json::from_str::<SetBody>(json).unwrap();
        let full =
            |unit: Option<&str>| SetBody::Full { value: Value::Int(40), unit: unit.map(str::to_owned) };
        assert_eq!(read("40"), SetBody::Bare(Value::Int(40)));
        assert_eq!(read(r#"{"value": 40, "note": "mine"}"#), full(None));
        assert_eq!(read(r#"{"value": 40, "unit": "bar"}"#), full(Some("bar")));
        assert!(matches!(read(r#"{"x": 1}"#), SetBody::Bare(Value::Struct(_))));
    }

    #[test]
    fn apps_see_a_reported_value_as_a_sample() {
        let reported = Reported {
            version: ReportedVersion { incarnation: bus::twin::Incarnation(1), rev: 7 },
            sample: Some(Sample { value: Value::Float(3.5), time: UnixMillis(9), quality: Quality::Good }),
            ack: None,
        };
        let body = json(&ReportedBody::of(&reported, None).unwrap());
        assert_eq!(&body[..], br#"{"value":3.5,"time":9,"quality":"good","rev":7}"#);
        let sample: Sample = serde_json::from_slice(&body).unwrap();
        assert_eq!(Some(sample), reported.sample);
    }
}
