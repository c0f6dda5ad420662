//! An operator steers with a certificate of his role, and changes nothing else.

use controller::io::new_key_and_csr;
use controller::pem;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::json;

use crate::client::Card;
use crate::{DEVICE, House};

const VALVE: &str = "/apis/devices.kubeedge.io/v1beta1/namespaces/water/devices/valve";

#[test]
fn an_operator_wishes_by_a_patch_and_may_change_nothing_else_of_the_device() {
    let house = House::open("steering");
    let card = house.add("olga", "operator");
    let mut client = house.cloud().client(Some(&card));
    let strategic = "Content-Type: application/strategic-merge-patch+json\r\n";
    let mut patch = |body: &serde_json::Value| {
        client.try_ask(&format!("PATCH {VALVE}"), strategic, &body.to_string()).unwrap()
    };
    let wish = json!({"name": "position", "desired": {"value": "40"}});
    let both = json!({"spec": {"nodeName": "b", "properties": [wish]}});
    let refused = patch(&both);
    let why = refused.body["message"].as_str().unwrap_or_default();
    assert!(
        refused.status == 403 && why.contains("user/olga is operator, and may not change"),
        "{refused:?}"
    );
    assert!(why.contains("spec.nodeName differs"), "{why}");
    let before = house.cluster.cloud.twin(DEVICE, "position");
    assert_eq!(before["desired"], serde_json::Value::Null);
    let done = patch(&json!({"spec": {"properties": [wish]}}));
    assert_eq!(done.status, 200, "{done:?}");
    let after = house.cluster.cloud.twin(DEVICE, "position");
    assert_eq!((&after["desired"], &after["by"]), (&json!(40.0), &json!("user/olga")));
    // The audit has both, as wishes.
    let log = house.cluster.cloud.ask(&["audit", "--who", "olga"]);
    let lines: Vec<_> =
        log.as_array().unwrap().iter().map(|line| (&line["status"], &line["detail"])).collect();
    assert_eq!(lines, [(&json!(403), &json!("position=40")), (&json!(200), &json!("position=40"))]);
    // Of a device that is there.
    let devices = VALVE.rsplit_once('/').unwrap().0;
    for (request, body) in [("PUT", VALVE), ("DELETE", VALVE), ("POST", devices)]
        .map(|(verb, path)| (format!("{verb} {path}"), both.to_string()))
    {
        let refused = house.cloud().client(Some(&card)).try_ask(&request, "", &body).unwrap();
        assert_eq!(refused.status, 403, "{request}: {refused:?}");
    }
    assert_eq!(house.cluster.cloud.twin(DEVICE, "position")["desired"], json!(40.0), "it is there");
}

#[test]
fn a_user_who_sent_a_request_is_let_in_with_a_key_that_never_travelled_until_he_is_revoked() {
    let house = House::open("requests");
    let mut admin = house.cloud().client(Some(&house.add("root", "admin")));
    let (key, csr) = new_key_and_csr().unwrap();
    let request = pem::encode("CERTIFICATE REQUEST", &csr);
    let user = json!({
        "apiVersion": "kubebus.io/v1alpha1", "kind": "User", "metadata": {"name": "vera"},
        "spec": {"role": "viewer", "request": request},
    });
    let users = "/apis/kubebus.io/v1alpha1/users";
    let made = admin.ask(&format!("POST {users}"), &user.to_string());
    assert_eq!(made.status, 201, "{made:?}");
    let certificate = made.body["status"]["certificate"].as_str().unwrap();
    let certificate = CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap();
    let card = Card { certificate, key: PrivateKeyDer::Pkcs8(key) };
    let mut vera = house.cloud().client(Some(&card));
    assert_eq!(vera.ask("GET /kubebus/v1/whoami", "").body, json!({"who": "user/vera", "role": "viewer"}));
    let change = |admin: &mut crate::client::Client, spec: serde_json::Value| {
        let merge = "Content-Type: application/merge-patch+json\r\n";
        let body = json!({ "spec": spec }).to_string();
        let done = admin.try_ask(&format!("PATCH {users}/vera"), merge, &body).unwrap();
        assert_eq!(done.status, 200, "{done:?}");
    };
    change(&mut admin, json!({"role": "app"}));
    let mut again = house.cloud().client(Some(&card));
    assert_eq!(again.ask("GET /kubebus/v1/whoami", "").body["role"], "app");
    change(&mut admin, json!({"revoked": true}));
    assert!(
        house
            .cloud()
            .client(Some(&card))
            .try_ask("GET /kubebus/v1/whoami", "", "")
            .is_ok_and(|answer| answer.status == 403)
    );
}
