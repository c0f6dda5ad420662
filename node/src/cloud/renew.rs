//! A cloud's part in renewals: edges' certificates, and its own.

use bus::bus::LinkId;
use bus::{Channel, Class, Frame, KeyHash, NodeId, Now};
use controller::renew::{Asker, RenewRefusal, RenewReply, handle_renew};

use super::Cloud;
use crate::renewal::Wish;
use crate::seam::{Line, Output};

/// When an edge whose cloud has no disk asks again, its own jitter excluded.
const DISK_RETRY_S: u32 = 60;

impl Cloud {
    /// A certificate is given only once the register has it for good: an edge that uses one which a crash here undid
    /// would be a stranger.
    pub(super) fn handle_renew(
        &mut self,
        link: LinkId,
        peer: &NodeId,
        key: KeyHash,
        request: &[u8],
        now: Now,
    ) {
        let reply = |reply: &RenewReply| {
            let frame = Frame::new(Channel::Join, reply.to_bytes());
            Output::Send { link, class: Class::Control, frame }
        };
        if let Some(why) = self.journal.degraded() {
            let refused = degraded(&format!("the cloud's disk refuses writes: {why}"));
            return self.said.push_back(reply(&refused));
        }
        let asker = Asker { name: &peer.name, key };
        let Self { cluster, keyspace, rate, signer, .. } = self;
        let answer = handle_renew(&cluster.name, asker, request, keyspace, now, rate, signer);
        self.note(match &answer {
            RenewReply::Renewed { .. } => format!("{peer} gets its next certificate"),
            RenewReply::Refused { message, .. } => format!("{peer} gets no other certificate: {message}"),
        });
        let otherwise = degraded("the cloud's disk refuses writes");
        self.said.promise(reply(&answer), Some(reply(&otherwise)));
    }

    /// It is its own authority, so which way leads to it is no question.
    pub(super) fn on_renewal(&mut self, wish: Wish) {
        match wish {
            Wish::Renew => self.said.push_back(Output::Renew { line: Line::First }),
            Wish::ShowOther => {}
        }
    }
}

fn degraded(message: &str) -> RenewReply {
    RenewReply::Refused {
        code: RenewRefusal::Internal,
        message: message.to_owned(),
        retry_after_s: DISK_RETRY_S,
    }
}
