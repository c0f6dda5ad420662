//! What is said to people.

use serde::Serialize;

/// What is wrong. The names are part of `-o json`: scripts may rely on them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    NotJoined,
    DataDir,
    DiskFull,
    PortTaken,
    CertificateUnusable,
    CertificateNotYetValid,
    CertificateExpired,
    CertificateNotRenewed,
    Dns,
    NothingListens,
    MtuBlackHole,
    UdpBlocked,
    HostUnreachable,
    WrongAuthority,
    WrongCloud,
    NotMember,
    SameIdentity,
    OutdatedCloud,
    CloudBusy,
    LinkFails,
    NodeHangs,
    NodeForbidden,
    NodeDown,
    ClockSkew,
    OverlayClash,
    Broker,
    EdgeAway,
    EdgeTrouble,
    EdgeSilent,
    EdgeNotAsked,
    MapperAway,
    DeviceName,
    DeviceTrouble,
    WishRefused,
    PolicyDenies,
    NoRoute,
    NarrowPath,
    LossyLink,
}

impl Cause {
    pub const ALL: [Self; 38] = [
        Self::NotJoined,
        Self::DataDir,
        Self::DiskFull,
        Self::PortTaken,
        Self::CertificateUnusable,
        Self::CertificateNotYetValid,
        Self::CertificateExpired,
        Self::CertificateNotRenewed,
        Self::Dns,
        Self::NothingListens,
        Self::MtuBlackHole,
        Self::UdpBlocked,
        Self::HostUnreachable,
        Self::WrongAuthority,
        Self::WrongCloud,
        Self::NotMember,
        Self::SameIdentity,
        Self::OutdatedCloud,
        Self::CloudBusy,
        Self::LinkFails,
        Self::NodeHangs,
        Self::NodeForbidden,
        Self::NodeDown,
        Self::ClockSkew,
        Self::OverlayClash,
        Self::Broker,
        Self::EdgeAway,
        Self::EdgeTrouble,
        Self::EdgeSilent,
        Self::EdgeNotAsked,
        Self::MapperAway,
        Self::DeviceName,
        Self::DeviceTrouble,
        Self::WishRefused,
        Self::PolicyDenies,
        Self::NoRoute,
        Self::NarrowPath,
        Self::LossyLink,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotJoined => "not-joined",
            Self::DataDir => "data-dir",
            Self::DiskFull => "disk-full",
            Self::PortTaken => "port-taken",
            Self::CertificateUnusable => "certificate-unusable",
            Self::CertificateNotYetValid => "certificate-not-yet-valid",
            Self::CertificateExpired => "certificate-expired",
            Self::CertificateNotRenewed => "certificate-not-renewed",
            Self::Dns => "dns",
            Self::NothingListens => "nothing-listens",
            Self::MtuBlackHole => "mtu-black-hole",
            Self::UdpBlocked => "udp-blocked",
            Self::HostUnreachable => "host-unreachable",
            Self::WrongAuthority => "wrong-authority",
            Self::WrongCloud => "wrong-cloud",
            Self::NotMember => "not-member",
            Self::SameIdentity => "same-identity",
            Self::OutdatedCloud => "outdated-cloud",
            Self::CloudBusy => "cloud-busy",
            Self::LinkFails => "link-fails",
            Self::NodeHangs => "node-hangs",
            Self::NodeForbidden => "node-forbidden",
            Self::NodeDown => "node-down",
            Self::ClockSkew => "clock-skew",
            Self::OverlayClash => "overlay-clash",
            Self::Broker => "broker",
            Self::EdgeAway => "edge-away",
            Self::EdgeTrouble => "edge-trouble",
            Self::EdgeSilent => "edge-silent",
            Self::EdgeNotAsked => "edge-not-asked",
            Self::MapperAway => "mapper-away",
            Self::DeviceName => "device-name",
            Self::DeviceTrouble => "device-trouble",
            Self::WishRefused => "wish-refused",
            Self::PolicyDenies => "policy-denies",
            Self::NoRoute => "no-route",
            Self::NarrowPath => "narrow-path",
            Self::LossyLink => "lossy-link",
        }
    }

    /// Whether what it is about is a device.
    pub fn is_of_devices(self) -> bool {
        [Self::MapperAway, Self::DeviceName, Self::DeviceTrouble, Self::WishRefused].contains(&self)
    }

    /// By its name; `None`: a cause of another version.
    pub fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|cause| cause.as_str() == name)
    }

    /// In a word or two, for people.
    pub fn says(self) -> &'static str {
        match self {
            Self::NotJoined => "this machine has not joined a cluster",
            Self::DataDir => "the data directory cannot be used",
            Self::DiskFull => "the disk takes no writes",
            Self::PortTaken => "another program has the node's port",
            Self::CertificateUnusable => "the node's certificate is of no use",
            Self::CertificateNotYetValid => "the node's certificate is not valid yet: this clock is behind",
            Self::CertificateExpired => "the node's certificate has expired",
            Self::CertificateNotRenewed => "the node's certificate is due and was not renewed so far",
            Self::Dns => "the cloud's name cannot be looked up",
            Self::NothingListens => "nothing listens at the cloud's port",
            Self::MtuBlackHole => "large packets are lost on the way to the cloud",
            Self::UdpBlocked => "UDP is blocked on the way to the cloud",
            Self::HostUnreachable => "the cloud's host cannot be reached",
            Self::WrongAuthority => "a cloud of another cluster answers there",
            Self::WrongCloud => "another node answers there",
            Self::NotMember => "the cloud does not know this node any more",
            Self::SameIdentity => "another node runs under this node's name",
            Self::OutdatedCloud => "this cloud was outlived by one restored from its backup",
            Self::CloudBusy => "the cloud is at its limit",
            Self::LinkFails => "the link to the cloud fails",
            Self::NodeHangs => "the node runs and does not answer",
            Self::NodeForbidden => "the node's console needs another user",
            Self::NodeDown => "the node does not run",
            Self::ClockSkew => "this machine's clock differs from the cloud's",
            Self::OverlayClash => "a network of this machine has the overlay's addresses",
            Self::Broker => "the MQTT broker does not work",
            Self::EdgeAway => "the edge is not connected",
            Self::EdgeTrouble => "the edge tells of trouble",
            Self::EdgeSilent => "the edge is connected and does not answer",
            Self::EdgeNotAsked => "the edge could not be asked to look at itself",
            Self::MapperAway => "a device's mapper is not connected",
            Self::DeviceName => "a device's host name cannot be looked up",
            Self::DeviceTrouble => "a device does not work as it should",
            Self::WishRefused => "a desired value was not taken",
            Self::PolicyDenies => "an access policy denies it",
            Self::NoRoute => "no way leads there",
            Self::NarrowPath => "packets of full length do not pass",
            Self::LossyLink => "a link loses packets",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Certainty {
    /// The evidence has no other explanation.
    Certain,
    /// It has, but a rare one.
    Likely,
    /// One of several.
    Possible,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub cause: Cause,
    /// The cause in words.
    pub says: &'static str,
    pub certainty: Certainty,
    /// Which node found it at itself: `edge/pump-house`. `None`: one that has not joined.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// A node, an endpoint, a device, a file.
    pub about: String,
    pub evidence: Vec<String>,
    pub advice: String,
}

impl Certainty {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Certain => "certain",
            Self::Likely => "likely",
            Self::Possible => "possible",
        }
    }

    /// By its name; what another version calls otherwise is possible at least.
    pub(super) fn of(name: &str) -> Self {
        let all = [Self::Certain, Self::Likely, Self::Possible];
        all.into_iter().find(|certainty| certainty.as_str() == name).unwrap_or(Self::Possible)
    }
}

impl Finding {
    pub(super) fn new(cause: Cause, about: impl Into<String>, advice: impl Into<String>) -> Self {
        let (about, advice) = (about.into(), advice.into());
        Self {
            cause,
            says: cause.says(),
            certainty: Certainty::Certain,
            node: None,
            about,
            evidence: Vec::new(),
            advice,
        }
    }

    pub(super) fn certain(self, certainty: Certainty) -> Self {
        Self { certainty, ..self }
    }

    pub(super) fn since(mut self, evidence: impl Into<String>) -> Self {
        self.evidence.push(evidence.into());
        self
    }
}
