//! What stands in an `AccessPolicy`.

use bus::twin::DeviceId;
use bus::{AccessRule, Name, PortRange, Protocol, Selector, SubnetKind};
use device_twin::model::{FieldError, Spec};
use ipnet::IpNet;
use serde::Deserialize;

use crate::label::{self, Labels, Selected};

/// In `from` and in `to`. More is better said by site or network; it also bounds what an edge is sent.
pub const MAX_SELECTORS: usize = 64;

/// In `ports`.
pub const MAX_RANGES: usize = 64;

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AccessPolicySpec {
    /// Who may begin to talk: any of these.
    from: Vec<SelectorSpec>,
    /// To whom: any of these.
    to: Vec<SelectorSpec>,
    /// About what: any of these; everything if not said.
    #[serde(default)]
    ports: Option<Vec<RangeSpec>>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct SelectorSpec {
    /// Behind any node of this site.
    site: Option<Name>,
    /// Behind this edge, or the WireGuard client of this name.
    node: Option<Name>,
    /// In this network, as far as it is part of the overlay.
    cidr: Option<IpNet>,
    /// In a subnet of this kind.
    kind: Option<KindSpec>,
    /// Behind whoever has all of these labels.
    #[serde(default, rename = "matchLabels")]
    labels: Labels,
}

#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum KindSpec {
    CloudVm,
    CloudContainer,
    EdgeNode,
    EdgeContainer,
    Lan,
    Wireguard,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct RangeSpec {
    /// A name, or a number of IANA's.
    protocol: ProtocolSpec,
    /// One port, at the side that is called.
    port: Option<u16>,
    /// Or a range: its first port
    from: Option<u16>,
    /// and its last.
    to: Option<u16>,
}

#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(untagged, expecting = "a protocol is any, tcp, udp, icmp, or a number of IANA's from 0 to 255")]
enum ProtocolSpec {
    Named(ProtocolName),
    Number(u8),
}

#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum ProtocolName {
    Any,
    Tcp,
    Udp,
    Icmp,
}

impl Spec for AccessPolicySpec {
    const API_VERSION: &'static str = "kubebus.io/v1alpha1";
    const KIND: &'static str = "AccessPolicy";

    fn check(&self) -> Result<(), FieldError> {
        check_selectors("spec.from", &self.from)?;
        check_selectors("spec.to", &self.to)?;
        let Some(ports) = &self.ports else { return Ok(()) };
        check_len("spec.ports", ports.len(), MAX_RANGES, "leave it out to allow everything")?;
        for (index, range) in ports.iter().enumerate() {
            range.check().map_err(|(field, reason)| wrong(format!("spec.ports[{index}]{field}"), reason))?;
        }
        Ok(())
    }
}

impl AccessPolicySpec {
    /// Names who has the labels now.
    pub(super) fn rule(&self, id: &DeviceId, labels: &label::Map) -> AccessRule {
        let Self { from, to, ports } = self;
        let selectors =
            |specs: &[SelectorSpec]| specs.iter().flat_map(|spec| spec.selectors(labels)).collect();
        let ranges = ports.iter().flatten().map(RangeSpec::range).collect();
        AccessRule { name: id.to_string(), from: selectors(from), to: selectors(to), ports: ranges }
    }

    /// The labels that it selects by.
    pub(super) fn labels(&self) -> impl Iterator<Item = &Labels> {
        self.from.iter().chain(&self.to).map(|spec| &spec.labels).filter(|labels| !labels.is_empty())
    }
}

fn check_selectors(field: &str, selectors: &[SelectorSpec]) -> Result<(), FieldError> {
    check_len(field, selectors.len(), MAX_SELECTORS, "name whom it is about")?;
    if let Some(index) = selectors.iter().position(SelectorSpec::is_empty) {
        return Err(wrong(format!("{field}[{index}]"), "give site, node, cidr, kind or matchLabels"));
    }
    for (index, selector) in selectors.iter().enumerate() {
        let mut labels = selector.labels.iter();
        let checked = labels
            .try_for_each(|(key, value)| label::check_key(key).and_then(|()| label::check_value(value)));
        checked.map_err(|error| wrong(format!("{field}[{index}].matchLabels"), error.to_string()))?;
    }
    Ok(())
}

/// An empty list could be taken for nobody as well as for everybody.
fn check_len(field: &str, len: usize, max: usize, instead: &str) -> Result<(), FieldError> {
    match len {
        0 => Err(wrong(field.to_owned(), format!("is empty: {instead}"))),
        len if len > max => {
            Err(wrong(field.to_owned(), format!("has {len} entries, over the limit of {max}")))
        }
        _ => Ok(()),
    }
}

fn wrong(field: String, reason: impl Into<String>) -> FieldError {
    FieldError { field, reason: reason.into() }
}

impl SelectorSpec {
    fn is_empty(&self) -> bool {
        let Self { site, node, cidr, kind, labels } = self;
        site.is_none() && node.is_none() && cidr.is_none() && kind.is_none() && labels.is_empty()
    }

    /// One, or one for each site and edge that has the labels.
    fn selectors(&self, known: &label::Map) -> Vec<Selector> {
        let Self { site, node, cidr, kind, labels } = self;
        let plain = Selector {
            site: site.clone(),
            node: node.clone(),
            cidr: cidr.map(|cidr| cidr.trunc()),
            kind: kind.map(KindSpec::kind),
        };
        if labels.is_empty() {
            return vec![plain];
        }
        let narrowed = |selected| match selected {
            Selected::Site(name) if site.as_ref().is_none_or(|site| *site == name) => {
                Some(Selector { site: Some(name), ..plain.clone() })
            }
            Selected::Edge(name) if node.as_ref().is_none_or(|node| *node == name) => {
                Some(Selector { node: Some(name), ..plain.clone() })
            }
            Selected::Site(_) | Selected::Edge(_) => None,
        };
        known.select(labels).into_iter().filter_map(narrowed).collect()
    }
}

impl KindSpec {
    fn kind(self) -> SubnetKind {
        match self {
            Self::CloudVm => SubnetKind::CloudVm,
            Self::CloudContainer => SubnetKind::CloudContainer,
            Self::EdgeNode => SubnetKind::EdgeNode,
            Self::EdgeContainer => SubnetKind::EdgeContainer,
            Self::Lan => SubnetKind::Lan,
            Self::Wireguard => SubnetKind::Wireguard,
        }
    }
}

impl RangeSpec {
    /// The field below this one that is wrong, and why.
    fn check(&self) -> Result<(), (&'static str, &'static str)> {
        let Self { protocol, port, from, to } = self;
        let has_ports = matches!(protocol.protocol(), Protocol::Tcp | Protocol::Udp);
        match (port, from, to) {
            (None, None, None) => Ok(()),
            _ if !has_ports => Err((".protocol", "only tcp and udp have ports")),
            (Some(_), None, None) => Ok(()),
            (Some(_), ..) => Err((".port", "is one port; a range is 'from' and 'to' without it")),
            (None, Some(_), None) => Err((".from", "a range has 'to' as well")),
            (None, None, Some(_)) => Err((".to", "a range has 'from' as well")),
            (None, Some(from), Some(to)) if from > to => Err((".to", "is below 'from'")),
            (None, Some(_), Some(_)) => Ok(()),
        }
    }

    fn range(&self) -> PortRange {
        let ports = self.port.map(|port| (port, port)).or(self.from.zip(self.to));
        PortRange { protocol: self.protocol.protocol(), ports }
    }
}

impl ProtocolSpec {
    fn protocol(self) -> Protocol {
        match self {
            Self::Named(ProtocolName::Any) => Protocol::Any,
            Self::Named(ProtocolName::Tcp) | Self::Number(6) => Protocol::Tcp,
            Self::Named(ProtocolName::Udp) | Self::Number(17) => Protocol::Udp,
            Self::Named(ProtocolName::Icmp) => Protocol::Icmp,
            Self::Number(number) => Protocol::Number(number),
        }
    }
}
