//! The node's own certificate: renewed, and shown.

use router::io::shard::Command;
use tracing::{info, warn};

use super::Driver;
use crate::admin::describe;
use crate::io::identity::Pair;
use crate::io::renew::RenewError;
use crate::renewal::{Certificate, News};
use crate::seam::{Input, Line};

impl Driver {
    pub(super) fn renew(&mut self, line: Line) {
        let upstream = self.upstream.as_mut();
        let target = upstream.and_then(|upstream| Some((upstream.to_renew(line)?, upstream.cloud.clone())));
        self.papers.renew(target, self.clock.now().wall);
    }

    pub(super) fn on_renewed(&mut self, answer: Result<Pair, RenewError>) {
        match answer.and_then(|next| self.papers.show(next)) {
            Ok(()) => self.say_certificate("this node has its next certificate", News::Renewed),
            Err(why) => {
                let news = why.into_news();
                if let News::Failed { why, .. } = &news {
                    warn!(why, "this node's certificate is not renewed, which is tried again");
                }
                self.handle(Input::Certificate(news));
            }
        }
    }

    pub(super) fn show_other(&mut self) {
        match self.papers.show_other() {
            Ok(true) => {
                let what = "the cloud does not know this certificate: the one before is tried";
                self.say_certificate(what, News::Shown);
            }
            Ok(false) => {}
            Err(why) => warn!(why = describe(&why), "the certificate before this one cannot be used"),
        }
    }

    fn say_certificate(&mut self, what: &str, news: fn(Certificate) -> News) {
        self.command(Command::SetCredentials(Box::new(self.papers.credentials().clone())));
        let certificate = self.papers.certificate();
        info!(?certificate, "{what}");
        self.handle(Input::Certificate(news(certificate)));
    }
}
