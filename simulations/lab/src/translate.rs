//! Real packets through a [`Nat`].

use bus::Mono;

use crate::internet::DropReason;
use crate::ipv4::{Content, End, Packet};
use crate::nat::Nat;

/// A packet leaves: its source becomes the public one.
pub(crate) fn outbound(nat: &mut Nat, packet: &mut Packet<'_>, now: Mono) -> Result<(), DropReason> {
    match packet.content() {
        Content::Flow(flow) => {
            let public = nat.outbound(flow, now).map_err(|_| DropReason::NatRefused)?;
            packet.rewrite(End::Source, public);
        }
        Content::ErrorAbout(flow) => {
            let public = nat.existing(flow.reversed(), now).ok_or(DropReason::NatRefused)?;
            packet.rewrite_error(End::Source, public);
        }
        // Nobody outside can have asked, and what has no ports cannot be told apart.
        Content::EchoReply(_) | Content::Opaque => return Err(DropReason::NatRefused),
    }
    Ok(())
}

/// A packet arrives at the public address: its destination becomes the inside one.
pub(crate) fn inbound(nat: &Nat, packet: &mut Packet<'_>, now: Mono) -> Result<(), DropReason> {
    match packet.content() {
        Content::Flow(flow) | Content::EchoReply(flow) => {
            let inside = nat.inbound(flow, now).map_err(|_| DropReason::NatRefused)?;
            packet.rewrite(End::Destination, inside);
        }
        Content::ErrorAbout(flow) => {
            let inside = nat.inbound(flow.reversed(), now).map_err(|_| DropReason::NatRefused)?;
            packet.rewrite_error(End::Destination, inside);
        }
        Content::Opaque => return Err(DropReason::NatRefused),
    }
    Ok(())
}
