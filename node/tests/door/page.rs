//! The page's log-in, and what strangers cannot do to those who are known.

use std::io::{BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Stdio;

use serde_json::json;

use crate::client::{Answer, Client, read};
use crate::harness::process::eventually;
use crate::{House, api};

const SAME: &str = "Origin: https://here\r\n";

fn secret_of(link: &str) -> &str {
    link.rsplit_once("/page/login#").unwrap_or_else(|| panic!("no link: {link}")).1
}

fn log_in(client: &mut Client, secret: &str, head: &str) -> Answer {
    let body = json!({ "secret": secret }).to_string();
    client.try_ask("POST /page/session", head, &body).unwrap()
}

#[test]
fn a_link_lets_a_browser_in_once_and_as_no_more_than_it_says() {
    let house = House::open("links");
    let cloud = &house.cluster.cloud;
    let link = cloud.say(&["page"]);
    assert!(link.starts_with(&format!("https://{}/page/login#", api(cloud))), "{link}");
    let mut client = house.cloud().client(None);
    assert_eq!(client.ask("GET /page/login", "").status, 200);
    let evil = "Origin: https://evil.example\r\n";
    assert_eq!(log_in(&mut client, secret_of(&link), evil).status, 403, "another site logs nobody in");
    let answer = log_in(&mut client, secret_of(&link), SAME);
    assert_eq!((answer.status, &answer.body["role"]), (200, &json!("viewer")));
    assert_eq!(log_in(&mut client, secret_of(&link), SAME).status, 403, "used up");
}

#[test]
fn a_guest_is_who_his_cookie_says_until_he_leaves() {
    let house = House::open("guests");
    let cloud = &house.cluster.cloud;
    let link = cloud.say(&["page", "--role", "operator"]);
    let mut client = house.cloud().client(None);
    let answer = log_in(&mut client, secret_of(&link), SAME);
    let cookie = format!("Cookie: {}\r\n", answer.cookie());
    let mut ask = |what: &str, head: &str, body: &str| {
        client.try_ask(what, &format!("{cookie}{head}"), body).unwrap().status
    };
    let wish = "PUT /kubebus/v1/twins/x/nothing/desired/position";
    assert_eq!(ask("GET /kubebus/v1/twins", "", ""), 200);
    assert_eq!(ask(wish, SAME, "1"), 404, "he may, and there is no such device");
    assert_eq!(ask(wish, "", "1"), 403, "who asked is not known");
    assert_eq!(ask(wish, "Origin: https://evil.example\r\n", "1"), 403);
    assert_eq!(ask(wish, "Sec-Fetch-Site: cross-site\r\n", "1"), 403);
    assert_eq!(ask("GET /kubebus/v1/tokens", "", ""), 403);
    assert_eq!(ask("DELETE /page/session", SAME, ""), 200);
    assert_eq!(ask("GET /kubebus/v1/twins", "", ""), 401);
    let lines = cloud.ask(&["audit"]);
    let lines: Vec<_> = lines.as_array().unwrap().iter().filter(|line| line["role"] == "operator").collect();
    let told =
        |what: &str| lines.iter().find(|line| line["what"] == what).map(|line| line["from"].to_string());
    for what in ["POST /page/session", "DELETE /page/session"] {
        assert!(told(what).is_some_and(|from| from.contains(", page")), "{what}: {lines:?}");
    }
}

#[test]
fn a_guest_goes_with_his_host_and_does_not_come_back_with_him() {
    let house = House::open("hosts");
    let cloud = &house.cluster.cloud;
    let alice = house.add("alice", "admin");
    let link = house.cloud().client(Some(&alice)).ask("POST /kubebus/v1/page/links", "{\"role\":\"admin\"}");
    let secret = link.body["path"].as_str().unwrap().rsplit('#').next().unwrap();
    let mut client = house.cloud().client(None);
    let answer = log_in(&mut client, secret, SAME);
    assert_eq!((answer.status, &answer.body["role"]), (200, &json!("admin")));
    let cookie = format!("Cookie: {}\r\n", answer.cookie());
    let whoami = |client: &mut Client| client.try_ask("GET /kubebus/v1/whoami", &cookie, "").unwrap().status;
    assert_eq!(whoami(&mut client), 200);
    let links = "POST /kubebus/v1/page/links";
    let refused = client.try_ask(links, &format!("{cookie}{SAME}"), "{\"role\":\"viewer\"}").unwrap();
    assert!(refused.status == 403 && refused.body.to_string().contains("by a link"), "{refused:?}");
    cloud.say(&["user", "role", "alice", "operator"]);
    client.ends().unwrap();
    cloud.say(&["user", "role", "alice", "admin"]);
    assert_eq!(whoami(&mut house.cloud().client(None)), 401, "the session is gone for good");
}

#[test]
fn strangers_in_the_hall_keep_nobody_out_who_has_a_certificate() {
    let house = House::open("hall");
    let alice = house.add("alice", "viewer");
    let strangers: Vec<Client> = (0..16)
        .map(|_| {
            let mut stranger = house.cloud().client(None);
            assert_eq!(stranger.ask("GET /healthz", "").status, 200);
            stranger
        })
        .collect();
    let one_more = house.cloud().client(None).try_ask("GET /healthz", "", "");
    assert!(one_more.is_err(), "{one_more:?}");
    assert_eq!(house.cloud().client(Some(&alice)).ask("GET /kubebus/v1/twins", "").status, 200);
    drop(strangers);
}

#[test]
fn one_user_does_not_fill_the_house() {
    let house = House::open("crowded");
    let (alice, bob) = (house.add("alice", "viewer"), house.add("bob", "viewer"));
    let whoami = "GET /kubebus/v1/whoami";
    let enter = |_| {
        let mut client = house.cloud().client(Some(&alice));
        assert_eq!(client.ask(whoami, "").status, 200);
        client
    };
    let mut hers: Vec<Client> = (0..32).map(enter).collect();
    assert_eq!(house.cloud().client(Some(&alice)).ask(whoami, "").status, 503);
    assert_eq!(house.cloud().client(Some(&bob)).ask(whoami, "").status, 200);
    assert_eq!(hers[0].ask("POST /kubebus/v1/policy/test", &" ".repeat(17 << 10)).status, 413);
}

#[test]
fn strangers_fill_the_hall_and_nothing_else() {
    let house = House::open("crowd");
    let alice = house.add("alice", "viewer");
    let mut inside = house.cloud().client(Some(&alice));
    assert_eq!(inside.ask("GET /kubebus/v1/twins", "").status, 200);
    let crowd: Vec<TcpStream> = (0..40).map(|_| TcpStream::connect(house.cloud().address).unwrap()).collect();
    // One address has its share; the last of the crowd was not let into the hall.
    let mut last = crowd.last().unwrap().try_clone().unwrap();
    last.set_read_timeout(Some(std::time::Duration::from_secs(30))).unwrap();
    assert!(matches!(std::io::Read::read(&mut last, &mut [0]), Ok(0) | Err(_)));
    assert_eq!(inside.ask("GET /kubebus/v1/twins", "").status, 200);
    house.cluster.cloud.say(&["status"]);
    drop(crowd);
    eventually("the hall is empty again", || {
        let asked = TcpStream::connect(house.cloud().address).map(|_| house.cloud().client(Some(&alice)));
        let answer = asked.and_then(|mut client| client.try_ask("GET /kubebus/v1/whoami", "", ""));
        answer.map(drop).map_err(|error| error.to_string())
    });
    assert!(house.cluster.cloud.panics().is_empty());
}

#[test]
fn a_loopback_socket_that_is_passed_on_serves_without_tls_too() {
    let mut house = House::open("passed-on");
    house.cluster.cloud.terminate();
    let cloud = &house.cluster.cloud;
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let mut command = std::process::Command::new("sh");
    let script = "export LISTEN_PID=$$ LISTEN_FDS=1; exec \"$0\" \"$@\" 3<&0 </dev/null";
    command.args(["-c", script, env!("CARGO_BIN_EXE_kubebus"), "cloud", "--config"]).arg(cloud.config());
    command.arg("--data-dir").arg(cloud.data_dir()).stdin(Stdio::from(std::os::fd::OwnedFd::from(socket)));
    let mut process = command.stderr(Stdio::null()).spawn().unwrap();
    let plain = || -> std::io::Result<Answer> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(std::time::Duration::from_secs(5)))?;
        stream.write_all(b"GET /kubebus/v1/twins HTTP/1.1\r\nHost: here\r\n\r\n")?;
        read(&mut BufReader::new(stream))
    };
    let answer = eventually("it answers", || match plain() {
        Ok(answer) if answer.status != 503 => Ok(answer),
        other => Err(format!("{other:?}")),
    });
    process.kill().unwrap();
    process.wait().unwrap();
    assert_eq!(answer.status, 401, "{answer:?}");
}
