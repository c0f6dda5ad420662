use super::*;
use crate::io::{csr_for, new_key_and_csr};
use crate::join::{JoinReply, JoinRequest, RefusalCode, handle_join};
use crate::token::{self, TokenSpec};
use crate::{CloudSubnets, Cluster, Plan};
use bus::{Mono, NodeId, Now};
use metadata::Keyspace;
use rustls::RootCertStore;
use rustls::pki_types::UnixTime;
use rustls::server::WebPkiClientVerifier;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

/// 2026-11-01.
const NOW: UnixMillis = UnixMillis(1_793_491_200_000);
const DAY: Duration = Duration::from_secs(24 * 3600);

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn edge(text: &str) -> Identity {
    Identity { cluster: name("water"), node: NodeId::edge(name(text)) }
}

fn authority(dir: &Path) -> CertificateAuthority {
    CertificateAuthority::open_or_create(dir, &name("water"), NOW).unwrap()
}

fn at(offset: i64, by: Duration) -> UnixTime {
    let seconds = NOW.0 as i64 / 1000 + offset * by.as_secs() as i64;
    UnixTime::since_unix_epoch(Duration::from_secs(seconds as u64))
}

/// What rustls' webpki, the verifier of every link, says of `der` at `time` when it trusts `ca` alone.
fn webpki(ca: &CertificateAuthority, der: &[u8], time: UnixTime) -> Result<(), rustls::Error> {
    let mut roots = RootCertStore::empty();
    roots.add(ca.ca_der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider).build().unwrap();
    verifier.verify_client_cert(&CertificateDer::from(der), &[], time).map(|_| ())
}

fn names_in(der: &[u8]) -> Vec<String> {
    let (_, certificate) = x509_parser::parse_x509_certificate(der).unwrap();
    let names = &certificate.subject_alternative_name().unwrap().unwrap().value.general_names;
    names.iter().map(ToString::to_string).collect()
}

#[test]
fn a_reopened_authority_is_the_same_and_its_certificates_verify() {
    let dir = tempfile::tempdir().unwrap();
    let first = authority(dir.path());
    let again = authority(dir.path());
    assert_eq!(first.hash(), again.hash());
    let (key, csr) = new_key_and_csr().unwrap();
    let signed = again.issue(&csr, &edge("pump-house"), NOW, NODE_VALIDITY).unwrap();
    assert_eq!(webpki(&first, &signed.certificate_der, at(1, DAY)), Ok(()));
    assert_eq!(signed.not_after, UnixMillis(NOW.0 + 90 * 24 * 3_600_000));
    let second = again.issue(&csr_for(&key).unwrap(), &edge("pump-house"), NOW, NODE_VALIDITY).unwrap();
    assert_eq!(second.public_key, signed.public_key);
    assert_ne!(second.serial, signed.serial);
}

#[test]
fn a_certificate_begins_five_minutes_early_and_ends_after_ninety_days() {
    let dir = tempfile::tempdir().unwrap();
    let ca = authority(dir.path());
    let signed = ca.issue(&new_key_and_csr().unwrap().1, &edge("a"), NOW, NODE_VALIDITY).unwrap();
    let minute = Duration::from_secs(60);
    for (time, valid) in
        [(at(-6, minute), false), (at(-4, minute), true), (at(89, DAY), true), (at(91, DAY), false)]
    {
        assert_eq!(webpki(&ca, &signed.certificate_der, time).is_ok(), valid, "{time:?}");
    }
}

#[test]
fn another_authority_is_not_trusted() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (one, two) = (authority(one.path()), authority(two.path()));
    let signed = one.issue(&new_key_and_csr().unwrap().1, &edge("a"), NOW, NODE_VALIDITY).unwrap();
    assert!(webpki(&two, &signed.certificate_der, at(1, DAY)).is_err());
    assert_ne!(one.hash(), two.hash());
}

#[test]
fn names_and_rights_in_a_request_are_not_given() {
    let dir = tempfile::tempdir().unwrap();
    let ca = authority(dir.path());
    let mut greedy =
        CertificateParams::new(vec!["cloud.example".to_owned(), "10.86.0.1".to_owned()]).unwrap();
    greedy.distinguished_name = common_name("hub");
    greedy.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    greedy.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let csr = greedy.serialize_request(&KeyPair::generate().unwrap()).unwrap();

    let signed = ca.issue(csr.der(), &edge("a"), NOW, NODE_VALIDITY).unwrap();

    assert_eq!(
        names_in(&signed.certificate_der),
        ["URI(spiffe://water/edge/a)", "DNSName(a.edge.water.kb.internal)"]
    );
    let (_, certificate) = x509_parser::parse_x509_certificate(&signed.certificate_der).unwrap();
    assert_eq!(certificate.subject().to_string(), "CN=a");
    assert!(!certificate.is_ca());
    assert!(!certificate.key_usage().unwrap().unwrap().value.key_cert_sign());
}

#[test]
fn a_request_for_somebody_elses_identity_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let ca = authority(dir.path());
    let ask = |uri: &str| {
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::URI(uri.to_owned().try_into().unwrap())];
        let csr = params.serialize_request(&KeyPair::generate().unwrap()).unwrap();
        ca.issue(csr.der(), &edge("a"), NOW, NODE_VALIDITY)
    };
    assert!(ask("spiffe://water/edge/a").is_ok());
    for other in ["spiffe://water/edge/b", "spiffe://water/cloud/hub", "spiffe://gas/edge/a", "https://a"] {
        assert!(matches!(ask(other), Err(CsrError::OtherIdentity(asked)) if asked == other));
    }
}

#[test]
fn no_bytes_of_a_request_do_harm() {
    let dir = tempfile::tempdir().unwrap();
    let ca = authority(dir.path());
    let mut params = CertificateParams::new(vec!["pump.example".to_owned()]).unwrap();
    params.subject_alt_names.push(SanType::URI("spiffe://water/edge/a".to_owned().try_into().unwrap()));
    let good = params.serialize_request(&KeyPair::generate().unwrap()).unwrap().der().to_vec();
    let of = |signed: &Signed| (signed.public_key, names_in(&signed.certificate_der));
    let expected = of(&ca.issue(&good, &edge("a"), NOW, NODE_VALIDITY).unwrap());
    let mut refused = 0;
    for at in 0..good.len() {
        for byte in [0x00, 0x7f, 0x80, 0xff, good[at] ^ 1] {
            let mut hostile = good.clone();
            hostile[at] = byte;
            // A few bytes lie outside of what is signed, and say nothing.
            match ca.issue(&hostile, &edge("a"), NOW, NODE_VALIDITY) {
                Ok(signed) => assert_eq!(of(&signed), expected, "{at}: {byte}"),
                Err(_) => refused += 1,
            }
        }
        assert!(ca.issue(&good[..at], &edge("a"), NOW, NODE_VALIDITY).is_err());
    }
    assert!(refused > 4 * good.len(), "{refused}");
}

#[test]
fn a_short_certificate_begins_a_little_before_now_and_a_long_one_five_minutes() {
    let dir = tempfile::tempdir().unwrap();
    let ca = authority(dir.path());
    let (_, csr) = new_key_and_csr().unwrap();
    let begins = |validity: u64| {
        let signed = ca.issue(&csr, &edge("a"), NOW, Duration::from_secs(validity)).unwrap();
        let (_, certificate) = x509_parser::parse_x509_certificate(&signed.certificate_der).unwrap();
        (NOW.0 / 1000) as i64 - certificate.validity().not_before.timestamp()
    };
    assert_eq!((begins(20), begins(90 * 24 * 3600)), (2, 300));
}

#[test]
fn a_request_must_prove_its_key() {
    let dir = tempfile::tempdir().unwrap();
    let ca = authority(dir.path());
    let issue = |csr: &[u8]| ca.issue(csr, &edge("a"), NOW, NODE_VALIDITY).unwrap_err().to_string();
    let (_, good) = new_key_and_csr().unwrap();
    let mut forged = good.clone();
    *forged.last_mut().unwrap() ^= 1;
    let trailing = [good.as_slice(), b"x"].concat();
    let p384 = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
    let p384 = CertificateParams::default().serialize_request(&p384).unwrap().der().to_vec();
    for (csr, expected) in [
        (forged, CsrError::Unproven),
        (trailing, CsrError::Malformed),
        (good[..good.len() - 1].to_vec(), CsrError::Malformed),
        (Vec::new(), CsrError::Malformed),
        (vec![0x30; MAX_CSR_LEN + 1], CsrError::Malformed),
        (p384, CsrError::KeyKind),
    ] {
        assert_eq!(issue(&csr), expected.to_string());
    }
}

#[test]
fn the_clouds_certificate_fits_its_key_and_verifies() {
    let dir = tempfile::tempdir().unwrap();
    let ca = authority(dir.path());
    let cloud = Identity { cluster: name("water"), node: NodeId::cloud(name("hub")) };
    let (key, csr) = new_key_and_csr().unwrap();
    let certificate = ca.issue(&csr, &cloud, NOW, NODE_VALIDITY).unwrap().certificate_der;
    assert_eq!(webpki(&ca, &certificate, at(1, DAY)), Ok(()));
    assert_eq!(names_in(&certificate), ["URI(spiffe://water/cloud/hub)", "DNSName(hub.water.kb.internal)"]);
    let hosts = ["cloud.example", "203.0.113.10", "no\u{e9}"].map(str::to_owned);
    let named = ca.issue_named(&csr, &cloud, &hosts, NOW, NODE_VALIDITY).unwrap().certificate_der;
    let names = names_in(&named);
    assert_eq!(names.len(), 4, "the host that is no name is left out: {names:?}");
    assert_eq!(names[2], "DNSName(cloud.example)");
    let key = KeyPair::from_pkcs8_der_and_sign_algo(&key, &PKCS_ECDSA_P256_SHA256).unwrap();
    let (_, parsed) = x509_parser::parse_x509_certificate(&certificate).unwrap();
    assert_eq!(parsed.public_key().raw, key.subject_public_key_info());
}

#[test]
fn no_identity_of_another_cluster_is_signed() {
    let dir = tempfile::tempdir().unwrap();
    let foreign = Identity { cluster: name("gas"), node: NodeId::edge(name("a")) };
    let csr = new_key_and_csr().unwrap().1;
    let error = authority(dir.path()).issue(&csr, &foreign, NOW, NODE_VALIDITY).unwrap_err();
    assert_eq!(
        bus::with_causes(&error),
        "the cluster's authority failed: spiffe://gas/edge/a is of another cluster"
    );
}

#[test]
fn no_certificate_outlives_the_authority() {
    let dir = tempfile::tempdir().unwrap();
    let ca = authority(dir.path());
    let csr = new_key_and_csr().unwrap().1;
    let signed = ca.issue(&csr, &edge("a"), NOW, CA_VALIDITY * 2).unwrap();
    assert_eq!(signed.not_after, after(NOW, CA_VALIDITY));
}

#[test]
fn the_key_file_is_private_and_refused_when_it_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ca.pem");
    authority(dir.path());
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    let error = CertificateAuthority::open_or_create(dir.path(), &name("water"), NOW).unwrap_err();
    assert!(error.to_string().contains("chmod 600"), "{error}");
}

#[test]
fn a_file_of_another_cluster_or_a_damaged_one_is_not_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ca.pem");
    authority(dir.path());
    let whole = std::fs::read_to_string(&path).unwrap();
    let open = |cluster: &str| CertificateAuthority::open_or_create(dir.path(), &name(cluster), NOW);
    assert!(matches!(open("gas"), Err(OpenError::OtherCluster { found, .. }) if found == "water"));
    std::fs::write(&path, &whole[..100]).unwrap();
    assert!(matches!(open("water"), Err(OpenError::Damaged { .. })));
    let other = tempfile::tempdir().unwrap();
    authority(other.path());
    let stranger = std::fs::read_to_string(other.path().join("ca.pem")).unwrap();
    let certificate_at = |text: &str| text.rfind("-----BEGIN").unwrap();
    let mixed = [&whole[..certificate_at(&whole)], &stranger[certificate_at(&stranger)..]].concat();
    std::fs::write(&path, mixed).unwrap();
    assert!(matches!(open("water"), Err(OpenError::NoPair { .. })));
}

#[test]
fn of_two_first_starts_one_authority_comes_out() {
    let dir = tempfile::tempdir().unwrap();
    let hashes: Vec<_> = std::thread::scope(|scope| {
        let starts: Vec<_> = (0..4).map(|_| scope.spawn(|| authority(dir.path()).hash())).collect();
        starts.into_iter().map(|start| start.join().unwrap()).collect()
    });
    assert!(hashes.iter().all(|hash| *hash == hashes[0]));
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
}

/// The registry and the authority together: what a node and its cloud do.
#[test]
fn a_node_joins_with_its_key_and_gets_a_certificate_that_verifies() {
    let dir = tempfile::tempdir().unwrap();
    let ca = authority(dir.path());
    let cluster = Cluster {
        name: name("water"),
        cloud: name("hub"),
        ca_der: ca.ca_der().to_vec(),
        endpoints: vec!["hub.example:10001".to_owned()],
        plan: Plan::new(Plan::DEFAULT_POOL, &name("water"), &ca.hash()).unwrap(),
    };
    let now = Now { mono: Mono(0), wall: NOW };
    let mut ks = Keyspace::new();
    cluster.establish(&CloudSubnets::default(), &mut ks, now).unwrap();
    let mut join = |secret: u8, csr_der: Vec<u8>| {
        token::create(&TokenSpec::for_site(name("site-a")), &[secret; 20], &cluster.plan, &mut ks, now)
            .unwrap();
        let request = JoinRequest { secret: vec![secret; 20], name: name("pump-house"), csr_der }.to_bytes();
        let mut sign = |csr: &[u8], identity: &Identity| ca.issue(csr, identity, NOW, NODE_VALIDITY);
        let reply = handle_join(&cluster, &request, &mut ks, now, &mut sign);
        JoinReply::from_bytes(&reply).unwrap()
    };

    let (key, csr) = new_key_and_csr().unwrap();
    let JoinReply::Welcome(welcome) = join(1, csr) else { panic!("refused") };
    assert_eq!(welcome.ca_der, ca.ca_der().to_vec());
    assert_eq!(webpki(&ca, &welcome.certificate_der, at(1, DAY)), Ok(()));
    assert_eq!(
        names_in(&welcome.certificate_der),
        ["URI(spiffe://water/edge/pump-house)", "DNSName(pump-house.edge.water.kb.internal)"]
    );

    assert!(matches!(join(2, csr_for(&key).unwrap()), JoinReply::Welcome(_)));
    let stranger = join(3, new_key_and_csr().unwrap().1);
    assert!(matches!(stranger, JoinReply::Refused { code: RefusalCode::NameTaken, .. }), "{stranger:?}");
    let garbage = join(4, b"garbage".to_vec());
    assert!(matches!(garbage, JoinReply::Refused { code: RefusalCode::InvalidCsr, .. }), "{garbage:?}");
}
