//! Which of a server's endpoints we use, and whether it is the right server.

use std::sync::Arc;

use kubebus_sdk::Error;
use opcua::client::transport::{ConnectorBuilder, TransportPollResult};
use opcua::client::{ClientConfig, SessionBuilder};
use opcua::core::ResponseMessage;
use opcua::crypto::CertificateStore;
use opcua::sync::RwLock;
use opcua::types::{
    DateTime, EndpointDescription, GetEndpointsRequest, MessageSecurityMode, RequestHeader, UserTokenPolicy,
    UserTokenType,
};

use crate::config::Settings;
use crate::status;

/// The endpoint with the security that the settings ask for. Its certificate is not yet trusted.
pub(crate) async fn choose(config: &ClientConfig, settings: &Settings) -> Result<EndpointDescription, Error> {
    let offered = ask(config, settings).await?;
    let mut endpoint = offered.iter().find(|offer| fits(offer, settings)).cloned().ok_or_else(|| {
        Error::Config(format!(
            "policy: {} offers {}, and not {} with {}",
            settings.url,
            list(&offered),
            settings.mode,
            settings.policy.to_str()
        ))
    })?;
    // A server behind a router calls itself what we cannot reach.
    endpoint.endpoint_url = settings.url.as_str().into();
    endpoint.user_identity_tokens = Some(tokens(&endpoint, settings)?);
    Ok(endpoint)
}

fn fits(offer: &EndpointDescription, settings: &Settings) -> bool {
    let binary =
        offer.transport_profile_uri.is_empty() || offer.transport_profile_uri.as_ref().contains("uatcp");
    binary
        && offer.security_mode == settings.mode
        && offer.security_policy_uri.as_ref() == settings.policy.to_uri()
}

fn list(offered: &[EndpointDescription]) -> String {
    let policy = |offer: &EndpointDescription| {
        let uri = offer.security_policy_uri.as_ref();
        format!("{} with {}", offer.security_mode, uri.rsplit('#').next().unwrap_or(uri))
    };
    let mut offers: Vec<String> = offered.iter().take(20).map(policy).collect();
    offers.dedup();
    if offers.is_empty() { "no endpoint".to_owned() } else { offers.join(", ") }
}

/// The ways of naming oneself that we use here, of several the one that hides a password.
fn tokens(endpoint: &EndpointDescription, settings: &Settings) -> Result<Vec<UserTokenPolicy>, Error> {
    let wanted = if settings.user.is_some() { UserTokenType::UserName } else { UserTokenType::Anonymous };
    let offered = endpoint.user_identity_tokens.iter().flatten();
    let mut fitting: Vec<UserTokenPolicy> =
        offered.filter(|token| token.token_type == wanted).cloned().collect();
    let is_plain = |token: &UserTokenPolicy| token.security_policy_uri.as_ref().ends_with("#None");
    fitting.sort_by_key(is_plain);
    let is_offered = !fitting.is_empty();
    // Signed messages can be read on their way, and whoever asked for security does not expect that of a password.
    if settings.user.is_some() && settings.mode == MessageSecurityMode::Sign {
        fitting.retain(|token| !is_plain(token));
    }
    if !fitting.is_empty() {
        return Ok(fitting);
    }
    let why = if is_offered {
        "the server wants the password unencrypted, which anybody on the way could read: security: sign-and-encrypt"
    } else if settings.user.is_some() {
        "the server takes no user and password at this endpoint: leave user out"
    } else {
        "the server lets nobody in anonymously: set user and password"
    };
    Err(Error::Auth(why.to_owned()))
}

/// GetEndpoints (OPC 10000-4 §5.5.4), over a channel of its own and without security, as every client must begin.
async fn ask(config: &ClientConfig, settings: &Settings) -> Result<Vec<EndpointDescription>, Error> {
    let failed = |error: opcua::types::Error| status::call(&error);
    let connector = settings.url.as_str().build().map_err(failed)?;
    let builder =
        SessionBuilder::new(config).connect_to_endpoint_directly(settings.url.as_str()).map_err(failed)?;
    let nobody = Arc::new(RwLock::new(CertificateStore::new("".as_ref())));
    let channel = builder.build_channel(nobody).map_err(failed)?;
    let mut events = channel.connect_no_retry(&connector).await.map_err(failed)?;
    let request = GetEndpointsRequest {
        request_header: RequestHeader {
            timestamp: DateTime::now(),
            request_handle: channel.request_handle(),
            timeout_hint: u32::try_from(settings.timeout.as_millis()).unwrap_or(u32::MAX),
            ..RequestHeader::default()
        },
        endpoint_url: settings.url.as_str().into(),
        locale_ids: None,
        profile_uris: None,
    };
    let answer = channel.send(request, settings.timeout);
    let mut answer = std::pin::pin!(answer);
    let answer = loop {
        tokio::select! {
            answer = &mut answer => break answer.map_err(failed)?,
            event = events.poll() => if let TransportPollResult::Closed(why) = event {
                return Err(status::of(why));
            },
        }
    };
    channel.close_channel().await;
    while !matches!(events.poll().await, TransportPollResult::Closed(_)) {}
    if let ResponseMessage::GetEndpoints(endpoints) = answer {
        return Ok(endpoints.endpoints.unwrap_or_default());
    }
    let refused = answer.response_header().service_result;
    Err(if refused.is_bad() {
        status::of(refused)
    } else {
        Error::transient(format!("asked for endpoints, the server sent {}", answer.type_name()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn a_password_is_not_sent_in_messages_that_are_only_signed() {
        let token = |policy: &str| UserTokenPolicy {
            token_type: UserTokenType::UserName,
            security_policy_uri: policy.into(),
            ..UserTokenPolicy::default()
        };
        let plain = token("http://opcfoundation.org/UA/SecurityPolicy#None");
        let as_endpoint = token("");
        let tokens = |security: &str, offered: &[&UserTokenPolicy]| {
            let dir = tempfile::tempdir().unwrap();
            let password = dir.path().join("password");
            std::fs::write(&password, "p").unwrap();
            let config = serde_json::json!({
                "url": "opc.tcp://h:1", "security": security, "user": "u", "password-file": password,
            });
            let settings = Settings::of(&serde_json::from_value::<Config>(config).unwrap()).unwrap();
            let offered = offered.iter().copied().cloned().collect();
            let endpoint =
                EndpointDescription { user_identity_tokens: Some(offered), ..EndpointDescription::default() };
            tokens(&endpoint, &settings).map(|tokens| tokens.len())
        };
        assert!(
            matches!(tokens("sign", &[&plain]), Err(Error::Auth(why)) if why.contains("sign-and-encrypt"))
        );
        assert_eq!(tokens("sign", &[&plain, &as_endpoint]), Ok(1));
        assert_eq!(tokens("sign-and-encrypt", &[&plain]), Ok(1));
        assert_eq!(tokens("none", &[&plain]), Ok(1));
    }
}
