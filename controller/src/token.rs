//! Join tokens as the cloud keeps them: who may still come, to which site, with which LANs.
//!
//! A token is known here by the hash of its secret alone (`/c/token/<id>`). It expires by the cloud's wall clock.
//! Using it up is a write in the keyspace cycle that registers the node, so a token never admits one node too many.

use std::time::Duration;

use bus::token::TokenId;
use bus::{JoinToken, Name, Now, UnixMillis};
use ipnet::IpNet;
use metadata::Keyspace;
use minicbor::{Decode, Encode};
use thiserror::Error;

use crate::lan::{Lan, overlap};
use crate::plan::Plan;
use crate::record::{self, DamagedRecord};

pub const PREFIX: &str = "/c/token/";

/// A token that outlives a year is a password.
pub const MAX_TTL: Duration = Duration::from_secs(365 * 24 * 3600);

/// One token may admit a site's worth of edges; its record names all of them.
pub const MAX_USES: u32 = 256;

/// LANs of one token: an edge with more networks than this wants a wider prefix.
pub const MAX_LANS: usize = 16;

/// Tokens that the cloud keeps at most; beyond it `create` fails until some are revoked or forgotten.
pub const MAX_TOKENS: usize = 10_000;

/// A token that expired this long ago is forgotten when the next is created; until then its late user is told that
/// it expired, not that it never was.
const FORGET_AFTER: Duration = Duration::from_secs(30 * 24 * 3600);

/// What a token shall allow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenSpec {
    pub site: Name,
    pub lans: Vec<IpNet>,
    pub ttl: Duration,
    pub uses: u32,
}

#[cfg(test)]
impl TokenSpec {
    /// One edge at `site`, within a day, without a LAN.
    pub(crate) fn for_site(site: Name) -> Self {
        Self { site, lans: Vec::new(), ttl: Duration::from_secs(24 * 3600), uses: 1 }
    }
}

/// One token, as stored and shown.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Token {
    /// [`TokenId`]'s bytes.
    #[n(0)]
    #[cbor(with = "minicbor::bytes")]
    id: [u8; 32],
    #[n(1)]
    pub site: Name,
    /// What its node may advertise.
    #[n(2)]
    pub lans: Vec<Lan>,
    #[n(3)]
    pub created: UnixMillis,
    #[n(4)]
    pub expires: UnixMillis,
    #[n(5)]
    pub uses: u32,
    /// The edges that came with it; at most `uses`.
    #[n(6)]
    pub used_by: Vec<Name>,
}

/// Why no token was created.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CreateError {
    #[error("a token holds between a second and {} days", MAX_TTL.as_secs() / 86_400)]
    Ttl,
    #[error("a token admits 1 to {MAX_USES} edges")]
    Uses,
    #[error("a token grants at most {MAX_LANS} LANs")]
    TooManyLans,
    #[error(transparent)]
    Lan(#[from] crate::lan::InvalidLan),
    #[error("LAN {0} is named twice or overlaps another of this token")]
    LanTwice(Lan),
    #[error(
        "LAN {lan} overlaps the overlay's own pool {pool}; set another pool at the cloud or renumber the LAN"
    )]
    LanInPool { lan: Lan, pool: IpNet },
    #[error("a LAN lies behind one edge: create one token for each, or leave --uses at 1")]
    SharedLan,
    #[error("there are {MAX_TOKENS} tokens; revoke some with 'kubebus token revoke'")]
    TooMany,
    #[error("this token exists")]
    Exists,
    #[error(transparent)]
    Damaged(#[from] DamagedRecord),
}

/// Why a secret admits nobody.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TokenRefused {
    #[error("not a token's secret")]
    Malformed,
    #[error("unknown")]
    Unknown,
    #[error("expired")]
    Expired(Token),
    #[error(transparent)]
    Damaged(#[from] DamagedRecord),
}

impl Token {
    pub fn id(&self) -> TokenId {
        TokenId(self.id)
    }

    pub fn is_expired(&self, now: Now) -> bool {
        now.wall >= self.expires
    }

    pub fn is_used_up(&self) -> bool {
        self.used_by.len() >= self.uses as usize
    }

    fn is_forgotten(&self, now: Now) -> bool {
        self.is_expired(now) && now.wall.since(self.expires) >= FORGET_AFTER
    }

    /// Uses up one use for the edge `by`; to be written in the cycle that registers it.
    pub(crate) fn consume(mut self, by: &Name, ks: &mut Keyspace) {
        debug_assert!(!self.is_used_up(), "checked before");
        self.used_by.push(by.clone());
        record::put(ks, &self.key(), &self);
    }

    fn key(&self) -> String {
        format!("{PREFIX}{}", self.id())
    }
}

/// Stores a token for `secret`, which the caller drew at random and shows once.
pub fn create(
    spec: &TokenSpec,
    secret: &[u8; JoinToken::SECRET_LEN],
    plan: &Plan,
    ks: &mut Keyspace,
    now: Now,
) -> Result<Token, CreateError> {
    let token = checked(spec, secret, plan, now)?;
    forget_old(ks, now)?;
    if ks.get(&token.key()).is_some() {
        return Err(CreateError::Exists);
    }
    if ks.range(PREFIX).count() >= MAX_TOKENS {
        return Err(CreateError::TooMany);
    }
    record::put(ks, &token.key(), &token);
    Ok(token)
}

fn checked(
    spec: &TokenSpec,
    secret: &[u8; JoinToken::SECRET_LEN],
    plan: &Plan,
    now: Now,
) -> Result<Token, CreateError> {
    if spec.ttl < Duration::from_secs(1) || spec.ttl > MAX_TTL {
        return Err(CreateError::Ttl);
    }
    if !(1..=MAX_USES).contains(&spec.uses) {
        return Err(CreateError::Uses);
    }
    Ok(Token {
        id: JoinToken::id_of(secret).0,
        site: spec.site.clone(),
        lans: checked_lans(spec, plan)?,
        created: now.wall,
        expires: UnixMillis(now.wall.0 + spec.ttl.as_millis() as u64),
        uses: spec.uses,
        used_by: Vec::new(),
    })
}

fn checked_lans(spec: &TokenSpec, plan: &Plan) -> Result<Vec<Lan>, CreateError> {
    if spec.lans.len() > MAX_LANS {
        return Err(CreateError::TooManyLans);
    }
    if !spec.lans.is_empty() && spec.uses > 1 {
        return Err(CreateError::SharedLan);
    }
    let mut lans: Vec<Lan> = Vec::new();
    for net in &spec.lans {
        let lan = Lan::new(*net)?;
        if lans.iter().any(|other| overlap(&other.net(), net)) {
            return Err(CreateError::LanTwice(lan));
        }
        if let Some(pool) = plan.pools().into_iter().find(|pool| overlap(pool, net)) {
            return Err(CreateError::LanInPool { lan, pool });
        }
        lans.push(lan);
    }
    Ok(lans)
}

fn forget_old(ks: &mut Keyspace, now: Now) -> Result<(), DamagedRecord> {
    let old = list(ks)?.into_iter().filter(|token| token.is_forgotten(now));
    old.for_each(|token| record::delete(ks, &token.key()));
    Ok(())
}

/// All tokens, used and expired ones too, by id.
pub fn list(ks: &Keyspace) -> Result<Vec<Token>, DamagedRecord> {
    record::list(ks, PREFIX)
}

/// Takes a token back; `false` if there is none of this id. Who came with it stays.
pub fn revoke(id: &TokenId, ks: &mut Keyspace) -> bool {
    let key = format!("{PREFIX}{id}");
    let known = ks.get(&key).is_some();
    if known {
        record::delete(ks, &key);
    }
    known
}

/// The token of `secret`, if it has not expired. It may be used up: who asks again is not told off for it.
pub fn find(secret: &[u8], ks: &Keyspace, now: Now) -> Result<Token, TokenRefused> {
    if secret.len() != JoinToken::SECRET_LEN {
        return Err(TokenRefused::Malformed);
    }
    let key = format!("{PREFIX}{}", JoinToken::id_of(secret));
    let token: Token = record::get(ks, &key)?.ok_or(TokenRefused::Unknown)?;
    if token.is_expired(now) { Err(TokenRefused::Expired(token)) } else { Ok(token) }
}

#[cfg(test)]
mod tests;
