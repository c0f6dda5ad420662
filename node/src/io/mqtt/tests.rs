use bus::Identity;
use controller::io::CertificateAuthority;
use router::io::shard::Credentials;
use rustls::pki_types::PrivatePkcs8KeyDer;

use super::*;

/// Of an edge of a cluster that was just made.
fn served(room: &Path) -> Served {
    let identity: Identity = "spiffe://water/edge/a".parse().unwrap();
    let now = bus::UnixMillis(1_800_000_000_000);
    let authority = CertificateAuthority::open_or_create(room, &identity.cluster, now).unwrap();
    let (key, csr) = controller::io::new_key_and_csr().unwrap();
    let validity = Duration::from_secs(3600);
    let signed = authority.issue(&csr, &identity, now, validity).unwrap();
    Served::new(&Credentials {
        chain: vec![CertificateDer::from(signed.certificate_der)],
        key: PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.secret_pkcs8_der().to_vec())),
        ca: authority.ca_der().clone(),
        identity,
    })
    .unwrap()
}

/// What a configuration makes: who is let in where without a name; or what is wrong with it.
fn doors(room: &Path, yaml: &str) -> Result<Vec<bool>, String> {
    let yaml = yaml.replace("ROOM", room.to_str().unwrap());
    let config: MqttConfig = serde_saphyr::from_str(&yaml).map_err(|error| error.to_string())?;
    let broker = broker(&config, &served(room)).map_err(|error| bus::with_causes(&error))?;
    Ok(std::iter::once(broker.anonymous).chain(broker.listeners.iter().map(|door| door.anonymous)).collect())
}

#[test]
fn nobody_comes_in_without_a_name_but_on_loopback_or_where_it_is_written() {
    let room = tempfile::tempdir().unwrap();
    std::fs::write(room.path().join("passwords"), "").unwrap();
    let table = [
        ("{}", vec![true]),
        ("{listen: '[::1]:1883'}", vec![true]),
        ("{listen: '0.0.0.0:1883', anonymous: true}", vec![true]),
        ("{anonymous: false, passwords: ROOM/passwords}", vec![false]),
        ("{listen: '0.0.0.0:1883', passwords: ROOM/passwords}", vec![false]),
        ("{listeners: [{address: '0.0.0.0:8883', tls: {}}]}", vec![true, false]),
        ("{listeners: [{address: '127.0.0.1:8883', tls: {}, websocket: true}]}", vec![true, true]),
        ("{listeners: [{address: '10.0.0.1:8883', tls: {}, anonymous: true}]}", vec![true, true]),
    ];
    for (yaml, expected) in table {
        assert_eq!(doors(room.path(), yaml), Ok(expected), "{yaml}");
    }
}

#[test]
fn what_is_wrong_is_named_with_its_place() {
    let room = tempfile::tempdir().unwrap();
    std::fs::write(room.path().join("plain"), "# users\nalice:secret\n").unwrap();
    std::fs::write(room.path().join("empty.pem"), "").unwrap();
    let table = [
        ("{listen: '0.0.0.0:1883'}", "mqtt.listen (0.0.0.0:1883) lets nobody in"),
        (
            "{listeners: [{address: '10.0.0.1:80', websocket: true}]}",
            "mqtt.listeners[0] (10.0.0.1:80) lets nobody in",
        ),
        ("{passwords: ROOM/missing}", "cannot read"),
        ("{passwords: ROOM/plain}", "plain: line 2: the password is written as it is"),
        ("{rights: [{who: '*'}, {who: alice}]}", "mqtt.rights, rule 2 ('alice'): 'alice' is nobody"),
        ("{rights: [{who: '*', publish: ['a/#/b']}]}", "'a/#/b' is no topic filter"),
        (
            "{listeners: [{address: '127.0.0.1:1', tls: {certificate: ROOM/empty.pem}}]}",
            "mqtt.listeners[0].tls: certificate and key go together",
        ),
        (
            "{listeners: [{address: '127.0.0.1:1', tls: {client-ca: ROOM/empty.pem}}]}",
            "empty.pem holds no certificate",
        ),
        ("{listeners: [{address: '127.0.0.1:1', tsl: {}}]}", "tsl"),
    ];
    for (yaml, told) in table {
        let error = doors(room.path(), yaml).unwrap_err();
        assert!(error.contains(told), "{yaml}: {error}");
    }
}

#[test]
fn a_nodes_own_credentials_serve_as_the_brokers() {
    let room = tempfile::tempdir().unwrap();
    let node = served(room.path());
    for client_certificate in [ClientCertificate::Optional, ClientCertificate::Required] {
        read_tls("mqtt.listeners[0]", &MqttTls { client_certificate, ..MqttTls::default() }, &node).unwrap();
    }
}

/// What the node makes of a broker that the site has; or what is wrong with its configuration.
fn site(room: &Path, yaml: &str) -> Result<Option<ExternalConfig>, String> {
    let yaml = yaml.replace("ROOM", room.to_str().unwrap());
    let config: MqttConfig = serde_saphyr::from_str(&yaml).map_err(|error| error.to_string())?;
    external(&config, &Name::new("a").unwrap(), 0).map_err(|error| bus::with_causes(&error))
}

#[test]
fn a_broker_of_the_site_is_found_and_logged_in_to() {
    let room = tempfile::tempdir().unwrap();
    std::fs::write(room.path().join("password"), "secret\nnote\n").unwrap();
    assert!(site(room.path(), "{}").unwrap().is_none());
    let plain = site(room.path(), "{external: {address: broker}}").unwrap().unwrap();
    assert_eq!((plain.to_string(), plain.client_id), ("broker:1883".to_owned(), "kubebus-a".to_owned()));
    assert_eq!(plain.subscribe, [Filter::new("mesh/#").unwrap()]);
    let login =
        "{external: {address: '[::1]:1884', username: kb, password-file: ROOM/password, client-id: x}}";
    let named = site(room.path(), login).unwrap().unwrap();
    assert_eq!((named.host.as_str(), named.port, named.client_id.as_str()), ("::1", 1884, "x"));
    assert_eq!(named.credentials, Some(("kb".to_owned(), "secret".to_owned())));
}

#[test]
fn what_is_wrong_with_a_broker_of_the_site_is_named() {
    let room = tempfile::tempdir().unwrap();
    let table = [
        ("{external: {}}", "address"),
        ("{external: {address: 'b:x'}}", "mqtt.external.address: 'x' is no port"),
        ("{external: {address: b, username: kb}}", "username and password-file go together"),
        ("{external: {address: b, username: kb, password-file: ROOM/none}}", "none: No such file"),
        ("{external: {address: b, subscribe: ['a/#/b']}}", "mqtt.external.subscribe: 'a/#/b'"),
        ("{external: {address: b}, rights: [{who: '*'}]}", "remove mqtt.rights, or mqtt.external"),
    ];
    for (yaml, told) in table {
        let error = site(room.path(), yaml).unwrap_err();
        assert!(error.contains(told), "{yaml}: {error}");
    }
}

#[test]
fn the_longest_silence_is_in_whole_seconds() {
    let room = tempfile::tempdir().unwrap();
    for (written, told) in
        [("0s", Ok(0)), ("10m", Ok(600)), ("18h 12m 15s", Ok(65535)), ("1500ms", Err(())), ("1day", Err(()))]
    {
        let config: MqttConfig = serde_saphyr::from_str(&format!("{{max-keep-alive: {written}}}")).unwrap();
        let broker = broker(&config, &served(&room.path().join(written)));
        assert_eq!(broker.map(|broker| broker.max_keep_alive).map_err(|_| ()), told, "{written}");
    }
}
