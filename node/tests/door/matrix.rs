//! Who may what, written down by hand: the code's own tables are not looked at.

use crate::client::Client;
use crate::{DEVICE, House, ROLES};

/// A request, and the roles that may have it by their first letters: (A)dmin, (O)perator, (V)iewer, (M)apper, a(P)p. What
/// it is about does not exist, so that those who may change nothing either.
const PATHS: &[(&str, &str, &str)] = &[
    ("GET /healthz", "", "AOVMP"),
    ("GET /metrics", "", "AOV"),
    ("GET /kubebus/v1/whoami", "", "AOVMP"),
    ("GET /kubebus/v1/status", "", "AOV"),
    ("GET /kubebus/v1/fleet", "", "AOV"),
    ("GET /kubebus/v1/nodes", "", "AOV"),
    ("DELETE /kubebus/v1/nodes/nobody", "", "A"),
    ("GET /kubebus/v1/tokens", "", "A"),
    ("POST /kubebus/v1/tokens", "{}", "A"),
    ("DELETE /kubebus/v1/tokens/0000", "", "A"),
    ("POST /kubebus/v1/resources", "{}", "A"),
    ("DELETE /kubebus/v1/resources/device/x/nothing", "", "A"),
    ("GET /kubebus/v1/resources/device", "", "AOVMP"),
    ("GET /kubebus/v1/resources/devicemodel", "", "AOVMP"),
    ("GET /kubebus/v1/resources/twinpolicy", "", "AOVM"),
    ("GET /kubebus/v1/resources/rule", "", "AOV"),
    ("GET /kubebus/v1/resources/accesspolicy", "", "AOV"),
    ("GET /kubebus/v1/resources/host", "", "AOV"),
    ("GET /kubebus/v1/twins", "", "AOVP"),
    ("GET /kubebus/v1/twins/water/valve", "", "AOVP"),
    ("PUT /kubebus/v1/twins/x/nothing/desired/position", "1", "AOP"),
    ("PATCH /kubebus/v1/twins/x/nothing/desired", "{}", "AOP"),
    ("POST /kubebus/v1/changes", "{}", "AOP"),
    ("POST /kubebus/v1/twins/x/nothing/commands/set", "{}", "AOP"),
    ("POST /kubebus/v1/twins/x/nothing/commands/reset-rule", "{}", "AO"),
    ("PUT /kubebus/v1/twins/x/nothing/authority", "{}", "AO"),
    ("DELETE /kubebus/v1/twins/x/nothing/authority", "", "AO"),
    ("GET /kubebus/v1/commands", "", "AOVP"),
    ("GET /kubebus/v1/rules", "", "AOV"),
    ("GET /kubebus/v1/rule-log", "", "AOV"),
    ("GET /kubebus/v1/history", "", "AOVP"),
    ("GET /kubebus/v1/audit", "", "AOV"),
    ("GET /kubebus/v1/audit-log", "", "AOV"),
    ("POST /kubebus/v1/policy/test", "{}", "AOV"),
    ("POST /kubebus/v1/route", "{}", "AOV"),
    ("GET /kubebus/v1/routes", "", "AOV"),
    ("POST /kubebus/v1/routes/approve", "{}", "A"),
    ("POST /kubebus/v1/routes/revoke", "{}", "A"),
    ("GET /kubebus/v1/labels/edge/nobody", "", "AOV"),
    ("POST /kubebus/v1/labels/edge/nobody", "{}", "A"),
    ("GET /kubebus/v1/wireguard", "", "AOV"),
    ("POST /kubebus/v1/wireguard", "{}", "A"),
    ("PUT /kubebus/v1/wireguard/nobody/keys", "{}", "A"),
    ("DELETE /kubebus/v1/wireguard/nobody", "", "A"),
    ("GET /kubebus/v1/backup", "", "A"),
    ("GET /kubebus/v1/users", "", "A"),
    ("GET /kubebus/v1/clients", "", "AOV"),
    ("PUT /kubebus/v1/clients/mapper/nobody", "{}", "A"),
    ("POST /kubebus/v1/clients/edge/nobody/revoke", "{}", "A"),
    ("POST /kubebus/v1/nodes/nobody/checks", "", "AO"),
    ("GET /kubebus/v1/upstream", "", "AOV"),
    ("PUT /kubebus/v1/users/nobody", "{}", "A"),
    ("PUT /kubebus/v1/users/nobody/role", "{\"role\":\"admin\"}", "A"),
    ("POST /kubebus/v1/users/nobody/revoke", "", "A"),
    ("DELETE /kubebus/v1/users/nobody", "", "A"),
    ("POST /kubebus/v1/page/links", "{}", "A"),
    ("GET /kubebus/v1/no-such-thing", "", "A"),
    ("PUT /kubebus/v1/status", "", "A"),
    // Of a device that is not there; what a patch may change of one is in `steering.rs`.
    ("PATCH /apis/devices.kubeedge.io/v1beta1/namespaces/x/devices/nothing", "{}", "AOP"),
    ("GET /apis/devices.kubeedge.io/v1beta1/namespaces/water/devices/valve/desired", "", "AOVP"),
    ("PUT /apis/devices.kubeedge.io/v1beta1/namespaces/x/devices/nothing/desired", "{}", "AOP"),
    ("PATCH /apis/devices.kubeedge.io/v1beta1/namespaces/x/devices/nothing/desired", "{}", "AOP"),
    ("GET /apis/devices.kubeedge.io/v1beta1/namespaces/water/devices/valve/commands", "", "AOVP"),
    ("POST /apis/devices.kubeedge.io/v1beta1/namespaces/x/devices/nothing/commands", "{}", "AOP"),
    ("GET /apis/devices.kubeedge.io/v1beta1/namespaces/water/devices/valve/authority", "", "AOVP"),
    ("PUT /apis/devices.kubeedge.io/v1beta1/namespaces/x/devices/nothing/authority", "{}", "AO"),
    ("PATCH /apis/devices.kubeedge.io/v1beta1/namespaces/x/devices/nothing/authority", "{}", "AO"),
    ("GET /apis", "", "AOVMP"),
    ("GET /openapi/v3", "", "AOVMP"),
    ("POST /apis/authorization.k8s.io/v1/selfsubjectaccessreviews", "{}", "AOVMP"),
];

/// Kinds of the resource API, and who may read them. Nobody but administrators changes one; a patch of a device is in
/// [`PATHS`].
const KINDS: &[(&str, &str)] = &[
    ("apis/devices.kubeedge.io/v1beta1/namespaces/x/devices", "AOVMP"),
    ("apis/devices.kubeedge.io/v1beta1/namespaces/x/devicemodels", "AOVMP"),
    ("apis/kubebus.io/v1alpha1/namespaces/x/twinpolicies", "AOVM"),
    ("apis/kubebus.io/v1alpha1/namespaces/x/rules", "AOV"),
    ("apis/kubebus.io/v1alpha1/namespaces/x/accesspolicies", "AOV"),
    ("apis/kubebus.io/v1alpha1/namespaces/x/hosts", "AOV"),
    ("apis/kubebus.io/v1alpha1/sites", "AOV"),
    ("apis/kubebus.io/v1alpha1/edgenodes", "AOV"),
    ("apis/kubebus.io/v1alpha1/routes", "AOV"),
    ("apis/kubebus.io/v1alpha1/wireguardpeers", "A"),
    ("apis/kubebus.io/v1alpha1/jointokens", "A"),
    ("apis/kubebus.io/v1alpha1/users", "A"),
    ("api/v1/namespaces/x/events", "AOV"),
];

/// Parts that are read, and who may.
const STATUSES: &[(&str, &str)] = &[
    ("apis/devices.kubeedge.io/v1beta1/namespaces/water/devices/valve/status", "AOVMP"),
    ("apis/kubebus.io/v1alpha1/namespaces/x/rules/nothing/status", "AOV"),
    ("apis/kubebus.io/v1alpha1/namespaces/x/accesspolicies/nothing/status", "AOV"),
    ("apis/kubebus.io/v1alpha1/namespaces/x/hosts/nothing/status", "AOV"),
    ("apis/kubebus.io/v1alpha1/sites/nothing/status", "AOV"),
    ("apis/kubebus.io/v1alpha1/edgenodes/nothing/status", "AOV"),
];

/// Parts that there are not, and what of a status nobody writes: for nobody but administrators, who hear that.
const NO_PARTS: &[&str] = &[
    "DELETE /apis/devices.kubeedge.io/v1beta1/namespaces/x/devices/nothing/desired",
    "PATCH /apis/devices.kubeedge.io/v1beta1/namespaces/x/devices/nothing/commands",
    "POST /apis/devices.kubeedge.io/v1beta1/namespaces/x/devices/nothing/authority",
    "POST /apis/kubebus.io/v1alpha1/namespaces/x/rules/nothing/reset",
    "PUT /apis/devices.kubeedge.io/v1beta1/namespaces/x/devices/nothing/status",
];

/// How a node says that it knows no such path, whatever is there.
const NOWHERE: [&str; 2] = ["no such path", "could not find the requested resource"];

const LETTERS: [char; 5] = ['A', 'O', 'V', 'M', 'P'];

#[test]
fn each_role_may_what_is_written_down_here_and_nothing_else() {
    let house = House::open("matrix");
    let before = house.state();
    for (letter, role) in LETTERS.into_iter().zip(ROLES) {
        let card = house.add(role, role);
        let mut client = house.cloud().client(Some(&card));
        for (what, body, roles) in PATHS {
            check(&mut client, role, what, body, roles.contains(letter));
        }
        for (kind, readers) in KINDS {
            let reads = readers.contains(letter);
            check(&mut client, role, &format!("GET /{kind}"), "", reads);
            check(&mut client, role, &format!("GET /{kind}/nothing"), "", reads);
            if !reads {
                // Those who may would have to wait for its end.
                check(&mut client, role, &format!("GET /{kind}?watch=true"), "", false);
            }
            if letter != 'A' {
                let may = |what: &str| PATHS.iter().any(|(known, ..)| *known == what);
                let others = changes(kind).into_iter().filter(|what| !may(what));
                others.for_each(|what| check(&mut client, role, &what, "{}", false));
            }
        }
        for (part, readers) in STATUSES {
            check(&mut client, role, &format!("GET /{part}"), "", readers.contains(letter));
        }
        for what in NO_PARTS.iter().filter(|_| letter != 'A') {
            check(&mut client, role, what, "{}", false);
        }
    }
    assert_eq!(house.state(), before, "nobody changed a thing");
    assert_eq!(house.cluster.cloud.twin(DEVICE, "position")["desired"], serde_json::Value::Null);
}

fn changes(kind: &str) -> [String; 5] {
    [
        format!("POST /{kind}"),
        format!("PUT /{kind}/nothing"),
        format!("PATCH /{kind}/nothing"),
        format!("DELETE /{kind}/nothing"),
        format!("DELETE /{kind}"),
    ]
}

#[track_caller]
fn check(client: &mut Client, role: &str, what: &str, body: &str, may: bool) {
    let answer = client.ask(what, body);
    let refused = [401, 403].contains(&answer.status);
    assert_eq!(!refused, may, "{role}: {what}: {answer:?}");
    // A right to what is not there is none; only administrators may ask for anything.
    let text = answer.body.to_string();
    let is_served = !NOWHERE.iter().any(|words| text.contains(words));
    assert!(is_served || role == "admin", "{role}: {what}: {answer:?}");
    if refused {
        let why = answer.body["error"].as_str().or(answer.body["message"].as_str()).unwrap_or_default();
        assert!(why.contains(&format!("is {role}, and may not")), "{role}: {what}: {answer:?}");
    }
}
