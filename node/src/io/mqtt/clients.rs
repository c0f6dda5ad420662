//! `kubebus mqtt list` and `revoke`: certificates of mappers and apps.

use anyhow::Result;
use hyper::Method;
use serde_json::Value;

use crate::clients::{ClientOrder, RevokeOrder};
use crate::io::admin::AskError;
use crate::io::cli::{AskArgs, Place, RevokeClientArgs};
use crate::io::commands::{call, fetch, say, show, text};
use crate::io::issue::Issued;
use crate::io::table::{table, time};
use crate::users::shown_key;

/// Of a key's hash, to tell the few of one client apart.
const ID_LEN: usize = 12;

/// Puts a certificate on its client's list; whether the cloud runs.
pub(super) async fn register(issued: &Issued, place: &Place) -> Result<bool> {
    let order = ClientOrder { key: shown_key(&issued.key_hash), not_after_ms: issued.not_after.0 };
    let path = format!("/kubebus/v1/clients/{}", issued.identity.node);
    let done = call(place, Method::PUT, &path, Some(&serde_json::to_value(order)?)).await;
    match done {
        Ok(_) => Ok(true),
        Err(why) if matches!(why.downcast_ref(), Some(AskError::NotRunning { .. })) => Ok(false),
        Err(why) => Err(why),
    }
}

pub(in crate::io) async fn list(ask: &AskArgs) -> Result<()> {
    show(&fetch(&ask.place, "/kubebus/v1/clients").await?, ask.output, listed)
}

pub(in crate::io) async fn revoke(args: &RevokeClientArgs) -> Result<()> {
    let RevokeClientArgs { who, certificate, place } = args;
    let order = serde_json::to_value(RevokeOrder { certificate: certificate.clone() })?;
    let client =
        call(place, Method::POST, &format!("/kubebus/v1/clients/{who}/revoke"), Some(&order)).await?;
    let listed = client["certificates"].as_array().map_or(0, Vec::len);
    say(&match (certificate, listed) {
        (Some(id), _) => format!("{who}: certificate {id} revoked"),
        (None, 0) => {
            format!("{who} revoked: none of its certificates is on the list, so see that the name is right")
        }
        (None, _) => format!("{who} revoked: what is issued from now on counts"),
    })
}

fn listed(clients: &Value) -> String {
    let rows = clients.as_array().into_iter().flatten().flat_map(|client| {
        let name = text(&client["client"]);
        let all = client["revoked"].is_null();
        let unlisted = (!all).then(|| {
            let state = format!("revoked {}", time(&client["revoked"]));
            vec![name.clone(), "any other".to_owned(), String::new(), String::new(), state]
        });
        let certificates = client["certificates"].as_array().into_iter().flatten();
        let rows: Vec<_> = certificates.map(|one| row(&name, one)).chain(unlisted).collect();
        rows
    });
    table(&["CLIENT", "ID", "ISSUED", "ENDS", "STATE"], &rows.collect::<Vec<_>>())
}

fn row(name: &str, one: &Value) -> Vec<String> {
    let id = text(&one["key"]).chars().take(ID_LEN).collect();
    let state = match one["revoked"].is_null() {
        true => "counts".to_owned(),
        false => format!("revoked {}", time(&one["revoked"])),
    };
    vec![name.to_owned(), id, time(&one["issued"]), time(&one["not_after"]), state]
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_list_says_of_each_certificate_whether_it_counts() {
        let client = json!([{
            "client": "mapper/modbus", "revoked": 5000,
            "certificates": [{ "key": "ab".repeat(32), "issued": 6000, "not_after": 900_000, "revoked": null }],
        }]);
        let told = listed(&client);
        let rows: Vec<&str> = told.lines().collect();
        assert_eq!(rows.len(), 3, "{told}");
        assert!(rows[1].contains("abababababab ") && rows[1].contains("counts"), "{told}");
        assert!(rows[2].contains("any other") && rows[2].contains("revoked"), "{told}");
    }
}
